//! DRBD's configuration. Whatever stands in the files: it is read the same twice, what is told of it has its place in one of them, and
//! what is taken holds together.
//!
//! The bytes are up to four files, with NULs between them: `drbd.conf`, `a.res`, `b.res` and `t`.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use drbd_conf::{Config, Memory, Mistakes, Node, Options, Place, Resource, read};

const FILES: [&str; 4] = ["/etc/drbd.conf", "/etc/a.res", "/etc/b.res", "/etc/t"];
/// The most mistakes that are told.
const TOLD_MAX: usize = 100;

pub(crate) fn run(bytes: &[u8]) {
    let parts = bytes.splitn(FILES.len(), |byte| *byte == 0);
    let files: BTreeMap<PathBuf, Vec<u8>> = FILES.iter().map(PathBuf::from).zip(parts.map(<[u8]>::to_vec)).collect();
    let files = Memory(files);
    let node = Node { name: "alice".into(), addresses: vec![std::net::Ipv4Addr::new(10, 0, 0, 1).into()] };
    let twice = [(); 2].map(|()| read(Path::new(FILES[0]), &node, &files));
    assert_eq!(twice[0], twice[1]);
    match &twice[0] {
        Ok(config) => whole(config, &files),
        Err(mistakes) => told(mistakes, &files),
    }
}

fn told(mistakes: &Mistakes, files: &Memory) {
    assert!((1..=TOLD_MAX).contains(&mistakes.told.len()), "{}", mistakes.told.len());
    for mistake in &mistakes.told {
        stands(&mistake.place, files);
        assert!(!mistake.what.contains(char::is_control), "{:?}", mistake.what);
    }
}

fn stands(place: &Place, files: &Memory) {
    let text = files.0.get(&*place.file).unwrap_or_else(|| panic!("{place} is in no file"));
    let lines = text.iter().filter(|byte| **byte == b'\n').count() + 1;
    assert!((1..=lines).contains(&(place.line as usize)), "{place} of {lines} lines");
}

fn whole(config: &Config, files: &Memory) {
    config.remarks.iter().for_each(|remark| stands(&remark.place, files));
    let mut names = HashSet::new();
    for resource in &config.resources {
        assert!(names.insert(&resource.name), "{} is there twice", resource.name);
        joined(resource, files);
    }
}

fn joined(resource: &Resource, files: &Memory) {
    for host in &resource.hosts {
        assert!(host.volumes.is_sorted_by_key(|volume| volume.number));
        assert!(host.volumes.iter().all(|volume| volume.device.is_some() && volume.minor.is_some()), "{host:?}");
    }
    for connection in &resource.connections {
        settings(&connection.net, files);
        for path in &connection.paths {
            let [one, other] = path.ends.as_slice() else { panic!("{path:?}") };
            for end in [one, other] {
                assert!(end.host.is_some_and(|host| host < resource.hosts.len()) && end.address.is_some(), "{end:?}");
            }
        }
    }
}

fn settings(options: &Options, files: &Memory) {
    options.iter().for_each(|setting| stands(&setting.place, files));
}
