//! A domain's configuration from another host. What is accepted goes to libxl under another name, and must not make it run, open or use
//! anything of this host's.
//!
//! The input is JSON that is grafted into a valid configuration: a first line `pv` or `hvm`, then lines `PLACE=JSON`, where a place is names
//! and indices with slashes between them. A text that begins with `{` is the whole configuration.

pub(crate) mod oracle;

use bascule::backing::{Backing, Kind};
use bascule::config::Guests;
use bascule::ids::VolumeId;
use bascule::plan::{self, DomainFacts};
use bascule::preflight::trust::{self, Agreed};
use bascule::protocol::{DiskUse, OfferedDisk};
use serde_json::Value;

use self::oracle::Allowed;

/// A file that the domain may read, as xvdc.
const CDROM: &str = "/srv/cd.iso";
const DOMAINS: [&str; 2] = [include_str!("domain/pv.json"), include_str!("domain/hvm.json")];
/// The longest list that a graft makes.
const LIST_LEN_MAX: usize = 16;

pub(crate) fn run(bytes: &[u8]) {
    let Some(text) = std::str::from_utf8(bytes).ok().and_then(grafted) else { return };
    let Some(accepted) = accept(&text) else { return };
    let allowed = Allowed { volumes: &[volume()], files: &[CDROM] };
    let renamed = plan::rename(&accepted, "vm0--incoming").expect("what was accepted has a name");
    let given: Value = serde_json::from_str(&renamed).expect("our JSON");
    if let Some(danger) = oracle::danger(&given, allowed) {
        panic!("accepted, but {danger}: {renamed}");
    }
}

pub(crate) fn volume() -> VolumeId {
    VolumeId { resource: "r0".into(), volume: 0 }
}

/// As the destination's preflight does.
fn accept(text: &str) -> Option<String> {
    DomainFacts::from_json(text).ok()?;
    let config = serde_json::from_str(text).ok()?;
    let backing = Backing { kind: Kind::File, size_bytes: 2048 };
    let cdrom = OfferedDisk { vdev: "xvdc".into(), path: CDROM.into(), usage: DiskUse::ReadOnly, backing };
    let agreed = Agreed { volumes: &[volume()], disks: &[cdrom] };
    trust::objections(&Guests::default(), &config, agreed).is_empty().then(|| text.to_owned())
}

/// The configuration that a text of grafts stands for.
pub(crate) fn grafted(text: &str) -> Option<String> {
    if text.starts_with('{') {
        return Some(text.to_owned());
    }
    let mut lines = text.lines();
    let domain = if lines.next()?.starts_with("hvm") { DOMAINS[1] } else { DOMAINS[0] };
    let mut config = serde_json::from_str(domain).expect("our sample");
    for (place, value) in lines.filter_map(|line| line.split_once('=')) {
        graft(&mut config, place, serde_json::from_str(value).ok()?);
    }
    Some(config.to_string())
}

fn graft(config: &mut Value, place: &str, value: Value) {
    let mut slot = config;
    for part in place.split('/') {
        slot = match part.parse::<usize>() {
            Ok(index) if index < LIST_LEN_MAX => at(slot, index),
            _ => field(slot, part),
        };
    }
    *slot = value;
}

fn at(slot: &mut Value, index: usize) -> &mut Value {
    if !slot.is_array() {
        *slot = Value::Array(Vec::new());
    }
    let list = slot.as_array_mut().expect("made so above");
    list.resize(list.len().max(index + 1), Value::Null);
    &mut list[index]
}

fn field<'v>(slot: &'v mut Value, name: &str) -> &'v mut Value {
    if !slot.is_object() {
        *slot = Value::Object(serde_json::Map::new());
    }
    &mut slot[name]
}
