//! Screens: the adapter of an HVM domain, the frame buffers of others, and who may look at them.

use serde_json::{Map, Value, json};

use super::build::{Builder, put, truth};
use super::devices;
use super::keys::{DomainType, INT};
use super::words;

impl Builder {
    pub(super) fn vga(&mut self) {
        let kind = if self.is_set("vga") {
            self.choice("vga", words::VGA)
        } else {
            self.flag("stdvga").map(|standard| if standard { "std" } else { "cirrus" })
        };
        self.put_some("b_info/type.hvm/vga/kind", kind);
    }

    /// A flag, or the kind of the host's adapter.
    pub(super) fn gfx_passthru(&mut self) {
        if let Ok(Some(flag)) = self.config.number("gfx_passthru") {
            return self.put("b_info/type.hvm/gfx_passthru", truth(flag != 0));
        }
        let Some(word) = self.text("gfx_passthru") else { return };
        let Some(kind) = words::GFX_PASSTHRU.find(&word) else {
            return self.problem("gfx_passthru", words::GFX_PASSTHRU.refusal(&word));
        };
        self.put("b_info/type.hvm/gfx_passthru", "True");
        self.put_some(
            "b_info/type.hvm/gfx_passthru_kind",
            Some(kind).filter(|kind| *kind != words::GFX_PASSTHRU.default),
        );
    }

    /// Each frame buffer has a keyboard and a pointer.
    pub(super) fn frame_buffers(&mut self) {
        self.devices("vfb", &devices::VFB);
        for number in 0..self.count("vfbs") {
            self.push("vkbs", json!({ "devid": number }));
        }
    }

    /// The keys at the top are for an HVM domain's adapter. With `vnc = 1` they make a PV domain's frame buffer, unless it has any.
    pub(super) fn viewers(&mut self) {
        match self.domain_type {
            DomainType::Hvm => {
                let viewers = self.viewer_options();
                let has = |path| viewers.pointer(path).is_some();
                let listens_on = viewers.pointer("/vnc/listen").and_then(Value::as_str).unwrap_or_default();
                if listens_on.contains(':') && has("/vnc/display") {
                    self.problem("vncdisplay", "and vnclisten both name a display");
                }
                for (name, value) in viewers.as_object().into_iter().flatten() {
                    self.put(&format!("b_info/type.hvm/{name}"), value.clone());
                }
            }
            DomainType::Pv if self.count("vfbs") == 0 => {
                if self.flag("vnc") == Some(true) {
                    let mut buffer = self.viewer_options();
                    buffer["devid"] = 0.into();
                    self.push("vfbs", buffer);
                    self.push("vkbs", json!({ "devid": 0 }));
                }
            }
            DomainType::Pv if self.is_set("vnc") => self.warn("is ignored, since vfb says what screens there are"),
            DomainType::Pvh if self.is_set("vnc") => {
                self.warn("is ignored: a PVH domain has no adapter, vfb is what it can have")
            }
            DomainType::Pv | DomainType::Pvh => {}
        }
    }

    /// `vnc`, `sdl` and `keymap` as libxl has them both in a frame buffer and in an HVM domain.
    fn viewer_options(&mut self) -> Value {
        const FLAGS: [(&str, &str); 4] =
            [("vnc", "vnc/enable"), ("vncunused", "vnc/findunused"), ("sdl", "sdl/enable"), ("opengl", "sdl/opengl")];
        const TEXTS: [(&str, &str); 5] = [
            ("vnclisten", "vnc/listen"),
            ("vncpasswd", "vnc/passwd"),
            ("display", "sdl/display"),
            ("xauthority", "sdl/xauthority"),
            ("keymap", "keymap"),
        ];
        let mut options = Map::new();
        for (key, path) in FLAGS {
            if let Some(flag) = self.flag(key) {
                put(&mut options, path, truth(flag));
            }
        }
        for (key, path) in TEXTS {
            if let Some(text) = self.text(key) {
                put(&mut options, path, text);
            }
        }
        if let Some(display) = self.bounded("vncdisplay", INT).filter(|display| *display != 0) {
            put(&mut options, "vnc/display", display);
        }
        options.into()
    }
}
