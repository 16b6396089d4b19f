//! Our own configuration. A text is refused with complaints that can be followed, or it is a configuration that, written, is read as the same.

use std::path::Path;

use bascule::config::{Config, Error};

/// More complaints than are ever made.
const COMPLAINTS_MAX: usize = 200;

pub(crate) fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Config::parse(Path::new("fuzz.toml"), text) {
        Ok(config) => assert_eq!(values(&read_back(&config.to_toml())), values(&config)),
        Err(Error::Wrong { complaints, .. }) => {
            let lines = text.bytes().filter(|byte| *byte == b'\n').count() + 1;
            assert!(!complaints.is_empty() && complaints.len() <= COMPLAINTS_MAX);
            assert!(complaints.iter().all(|complaint| (1..=lines).contains(&complaint.line)), "{complaints:?}");
        }
        Err(other) => panic!("a text cannot be {other:?}"),
    }
}

pub(super) fn read_back(text: &str) -> Config {
    Config::parse(Path::new("fuzz.toml"), text).unwrap_or_else(|error| panic!("what we wrote: {error}\n{text}"))
}

pub(super) fn values(config: &Config) -> Vec<(&'static str, &'static str, String)> {
    config.shown().into_iter().map(|shown| (shown.table, shown.key, shown.toml)).collect()
}
