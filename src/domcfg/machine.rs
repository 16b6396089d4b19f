//! What an HVM domain's machine has beyond switches: enlightenments, capabilities, a generation ID, and its device model.

use std::collections::BTreeSet;

use ring::rand::{SecureRandom, SystemRandom};

use super::build::{Builder, truth};
use super::words;

/// Bits of the map of enlightenments (libxl.h, `LIBXL_BUILDINFO_HVM_VIRIDIAN_ENABLE_DISABLE_WIDTH`).
const VIRIDIAN_BITS: usize = 64;
/// The capability `lmce` (xen/hvm/params.h, `XEN_HVM_MCA_CAP_LMCE`).
const MCA_LMCE: u64 = 1;

impl Builder {
    /// A flag, or a list of enlightenments, each with `!` before it to do without.
    pub(super) fn viridian(&mut self) {
        if !self.is_list("viridian") {
            let flag = self.flag("viridian");
            return self.put_some("b_info/type.hvm/viridian", flag.map(truth));
        }
        let (mut with, mut without) = (BTreeSet::new(), BTreeSet::new());
        for word in self.list("viridian").unwrap_or_default() {
            match word.as_str() {
                "all" => with.extend(0..VIRIDIAN_BITS),
                "defaults" => self.put("b_info/type.hvm/viridian", "True"),
                word => match enlightenment(word) {
                    Some((bit, true)) => drop((with.insert(bit), without.remove(&bit))),
                    Some((bit, false)) => drop((without.insert(bit), with.remove(&bit))),
                    None => self.problem("viridian", words::VIRIDIAN.refusal(word)),
                },
            }
        }
        self.put_list("b_info/type.hvm/viridian_enable", Some(Vec::from_iter(with)));
        self.put_list("b_info/type.hvm/viridian_disable", Some(Vec::from_iter(without)));
    }

    pub(super) fn mca_caps(&mut self) {
        let mut capabilities = 0;
        for word in self.list("mca_caps").unwrap_or_default() {
            match word.as_str() {
                "lmce" => capabilities |= MCA_LMCE,
                _ => self.problem("mca_caps", format!("= {word:?} is not lmce")),
            }
        }
        self.put_some("b_info/type.hvm/mca_caps", Some(capabilities).filter(|capabilities| *capabilities != 0));
    }

    /// 16 random bytes by which a system knows that it is a copy of another.
    pub(super) fn generation_id(&mut self) {
        match self.text("ms_vm_genid").as_deref() {
            None | Some("none") => {}
            Some("generate") => {
                let mut bytes = [0; 16];
                match SystemRandom::new().fill(&mut bytes) {
                    Ok(()) => self.put("b_info/type.hvm/ms_vm_genid", bytes.to_vec()),
                    Err(_) => self.problem("ms_vm_genid", "cannot be made: this host has no random numbers"),
                }
            }
            Some(other) => self.problem("ms_vm_genid", format!("= {other:?} is none of generate, none")),
        }
    }

    /// Another device model than libxl's.
    pub(super) fn device_model(&mut self) {
        let model = self.text("device_model_override");
        if model.is_some() && !self.is_set("device_model_version") {
            self.warn("is given without device_model_version, which says how to talk to it");
        }
        self.put_some("b_info/device_model", model);
    }
}

/// The bit of an enlightenment, and whether it is wanted.
fn enlightenment(word: &str) -> Option<(usize, bool)> {
    let (name, wanted) = word.strip_prefix('!').map_or((word, true), |name| (name, false));
    let name = words::VIRIDIAN.find(name)?;
    words::VIRIDIAN.all.iter().position(|known| *known == name).map(|bit| (bit, wanted))
}
