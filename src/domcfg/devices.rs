//! Devices that are lists of `key=value` with commas between them: one table for each kind, and what reads them all. No library
//! does; xl has a function for each (tools/xl/xl_parse.c; for nics docs/man/xl-network-configuration.5).

use serde_json::{Map, Value};

use super::build::{put, truth};
use super::words::{self, Choices, Words, none_of};
use crate::nearest::nearest;

mod nic;
mod rules;

pub(super) use nic::VIF;
use rules as rule;

/// A kind of device.
#[derive(Debug)]
pub(super) struct Device {
    /// The list of libxl's JSON.
    pub(super) list: &'static str,
    fields: &'static [Field],
    /// Each has a number, which is its place in the list unless it says something else.
    numbered: bool,
    /// There may be spaces around the equals sign.
    spaced: bool,
    /// What has to hold when all fields are read, and what is derived from them.
    finish: fn(&mut Map<String, Value>) -> Result<(), String>,
}

#[derive(Debug)]
struct Field {
    name: &'static str,
    to: To,
}

/// Where a field's value goes. Paths are those of libxl's JSON inside the device.
#[derive(Debug)]
enum To {
    Text(&'static str),
    /// A number from 0; the second is libxl's default, which is not written.
    Number(&'static str, Base, Option<u64>),
    /// A number, of which only 0 is false; for libxl a truth value that has a default.
    Flag(&'static str),
    /// The same for a field that is false unless it is written.
    Bool(&'static str),
    Word(&'static str, &'static Words),
    Choice(&'static str, Choices),
    By(fn(&mut Map<String, Value>, &str) -> Result<(), String>),
    /// A word without a value.
    Bare(fn(&mut Map<String, Value>) -> Result<(), String>),
}

/// How a number is written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Base {
    /// In decimal.
    Ten,
    /// As in C: hexadecimal behind `0x`, octal behind `0`.
    C,
}

/// A device as libxl's JSON; `number` is its place in the list.
pub(super) fn parse(device: &Device, spec: &str, number: usize) -> Result<Value, String> {
    let mut json = Map::new();
    if device.numbered {
        json.insert("devid".to_owned(), number.into());
    }
    for token in spec.split(',').map(str::trim).filter(|token| !token.is_empty()) {
        match token.split_once('=') {
            Some((key, value)) if device.spaced => set(device, &mut json, key.trim_end(), Some(value.trim_start()))?,
            Some((key, value)) => set(device, &mut json, key, Some(value))?,
            None => set(device, &mut json, token, None)?,
        }
    }
    (device.finish)(&mut json)?;
    Ok(json.into())
}

fn set(device: &Device, json: &mut Map<String, Value>, name: &str, value: Option<&str>) -> Result<(), String> {
    let Some(field) = device.fields.iter().find(|field| field.name == name) else {
        let hint = nearest(name, device.fields.iter().map(|field| field.name));
        let hint = hint.map(|known| format!(", did you mean {known}?")).unwrap_or_default();
        return Err(format!("{name} is not understood{hint}"));
    };
    match (&field.to, value) {
        (To::Bare(function), None) => function(json),
        (To::Bare(_), Some(_)) => Err(format!("{name} has no value")),
        (_, None) => Err(format!("{name} needs a value: {name}=VALUE")),
        (to, Some(value)) => set_value(to, json, value).map_err(|reason| format!("{name} {reason}")),
    }
}

fn set_value(to: &To, json: &mut Map<String, Value>, value: &str) -> Result<(), String> {
    match to {
        To::Text(path) => put(json, path, value),
        To::Number(path, base, default) => {
            let number = number(value, *base)?;
            if Some(number) != *default {
                put(json, path, number);
            }
        }
        To::Flag(path) => put(json, path, truth(number(value, Base::Ten)? != 0)),
        To::Bool(path) => {
            if number(value, Base::C)? != 0 {
                put(json, path, true);
            }
        }
        To::Word(path, words) => {
            let word = words.find(value).ok_or_else(|| words.refusal(value))?;
            if word != words.default {
                put(json, path, word);
            }
        }
        To::Choice(path, choices) => match choices.iter().find(|(choice, _)| *choice == value) {
            Some((_, word)) => put(json, path, *word),
            None => return Err(none_of(value, choices.iter().map(|(choice, _)| *choice))),
        },
        To::By(function) => return function(json, value),
        To::Bare(_) => {}
    }
    Ok(())
}

/// A number that libxl keeps in 32 bits or less.
pub(super) fn number(text: &str, base: Base) -> Result<u64, String> {
    let (digits, radix) = match (base, text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))) {
        (Base::C, Some(digits)) => (digits, 16),
        (Base::C, None) if text.len() > 1 && text.starts_with('0') => (text, 8),
        _ => (text, 10),
    };
    let plain = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let number =
        u64::from_str_radix(digits, radix).ok().filter(|number| plain && *number <= i32::MAX.unsigned_abs().into());
    number.ok_or_else(|| format!("= {text:?} is no number from 0 to {}", i32::MAX))
}

const fn field(name: &'static str, to: To) -> Field {
    Field { name, to }
}

const fn device(list: &'static str, fields: &'static [Field]) -> Device {
    Device { list, fields, numbered: true, spaced: false, finish: rule::nothing }
}

const BACKEND: Field = field("backend", To::Text("backend_domname"));

/// A directory of the host. xl gives these no numbers.
pub(super) static P9: Device = Device {
    numbered: false,
    finish: |json| rule::needs(json, &["path", "security_model", "tag"]),
    ..device(
        "p9s",
        &[
            field("tag", To::Text("tag")),
            field("security_model", To::Text("security_model")),
            field("path", To::Text("path")),
            BACKEND,
        ],
    )
};

/// A virtual TPM.
pub(super) static VTPM: Device = Device {
    finish: |json| rule::needs(json, &["backend"]),
    ..device("vtpms", &[BACKEND, field("uuid", To::By(rule::uuid))])
};

/// A display by its connectors.
pub(super) static VDISPL: Device = Device {
    finish: |json| rule::needs(json, &["connectors"]),
    ..device(
        "vdispls",
        &[BACKEND, field("be-alloc", To::Bool("be_alloc")), field("connectors", To::By(rule::connectors))],
    )
};

/// Sockets of another domain.
pub(super) static PVCALLS: Device = device("pvcallsifs", &[BACKEND]);

/// A console with a name.
pub(super) static CHANNEL: Device = Device {
    spaced: true,
    finish: rule::connection,
    ..device(
        "channels",
        &[
            BACKEND,
            field("name", To::Text("name")),
            field("connection", To::Choice("connection", &[("pty", "pty"), ("socket", "socket")])),
            field("path", To::Text("path")),
        ],
    )
};

/// A frame buffer.
pub(super) static VFB: Device = device(
    "vfbs",
    &[
        field("vnc", To::Flag("vnc/enable")),
        field("vnclisten", To::Text("vnc/listen")),
        field("vncpasswd", To::Text("vnc/passwd")),
        field("vncdisplay", To::Number("vnc/display", Base::Ten, Some(0))),
        field("vncunused", To::Flag("vnc/findunused")),
        field("keymap", To::Text("keymap")),
        field("sdl", To::Flag("sdl/enable")),
        field("opengl", To::Flag("sdl/opengl")),
        field("display", To::Text("sdl/display")),
        field("xauthority", To::Text("sdl/xauthority")),
    ],
);

/// A keyboard and a pointer.
pub(super) static VKB: Device = Device {
    finish: rule::touch,
    ..device(
        "vkbs",
        &[
            BACKEND,
            field("backend-type", To::Word("backend_type", &words::VKB_BACKENDS)),
            field("unique-id", To::Text("unique_id")),
            field("feature-disable-keyboard", To::Bool("feature_disable_keyboard")),
            field("feature-disable-pointer", To::Bool("feature_disable_pointer")),
            field("feature-abs-pointer", To::Bool("feature_abs_pointer")),
            field("feature-raw-pointer", To::Bool("feature_raw_pointer")),
            field("feature-multi-touch", To::Bool("feature_multi_touch")),
            field("multi-touch-width", To::Number("multi_touch_width", Base::C, Some(0))),
            field("multi-touch-height", To::Number("multi_touch_height", Base::C, Some(0))),
            field("multi-touch-num-contacts", To::Number("multi_touch_num_contacts", Base::C, Some(0))),
            field("width", To::Number("width", Base::C, Some(0))),
            field("height", To::Number("height", Base::C, Some(0))),
        ],
    )
};

/// A USB controller.
pub(super) static USB_CONTROLLER: Device = device(
    "usbctrls",
    &[
        field("type", To::Word("type", &words::USB_CONTROLLERS)),
        field("version", To::Number("version", Base::Ten, Some(0))),
        field("ports", To::Number("ports", Base::Ten, Some(0))),
    ],
);

/// A USB device of the host.
pub(super) static USB_DEVICE: Device = Device {
    numbered: false,
    finish: |json| rule::needs(json, &["type.hostdev"]),
    ..device(
        "usbdevs",
        &[
            field("type", To::Word("type", &words::USB_DEVICES)),
            field("hostbus", To::Number("type.hostdev/hostbus", Base::C, Some(0))),
            field("hostaddr", To::Number("type.hostdev/hostaddr", Base::C, Some(0))),
            field("controller", To::Number("ctrl", Base::Ten, None)),
            field("port", To::Number("port", Base::Ten, Some(0))),
        ],
    )
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_in_their_base_and_whole() {
        for (text, base, expected) in
            [("010", Base::Ten, 10), ("010", Base::C, 8), ("0x1F", Base::C, 31), ("0", Base::C, 0)]
        {
            assert_eq!(number(text, base), Ok(expected), "{text}");
        }
        for (text, base) in [
            ("", Base::Ten),
            ("0x10", Base::Ten),
            ("9000bytes", Base::Ten),
            ("+1", Base::C),
            ("4294967296", Base::C),
            ("-1", Base::C),
        ] {
            assert!(number(text, base).is_err(), "{text}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let rows = [
            (&VFB, "vnk=1", "did you mean vnc?"),
            (&VKB, "width=3", "backend-type"),
            (&P9, "tag=t,path", "path needs a value"),
            (&P9, "tag=t,path=/p", "security_model"),
            (&CHANNEL, "connection = tcp", "none of pty, socket"),
            (&USB_DEVICE, "port=1", "hostbus"),
            (&VTPM, "backend = a", "did you mean backend?"),
        ];
        for (device, spec, named) in rows {
            let reason = parse(device, spec, 0).expect_err(spec);
            assert!(reason.contains(named), "{spec}: {reason}");
        }
    }
}
