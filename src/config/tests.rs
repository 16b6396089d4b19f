//! Files as people write them.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use proptest::prelude::*;

use super::tables::TABLES;
use super::*;
use crate::daemon::{Allow, Nets};

fn parse(text: &str) -> Result<Config, Error> {
    Config::parse(Path::new("b.toml"), text)
}

fn complaints(text: &str) -> Vec<String> {
    parse(text).expect_err("wrong").to_string().lines().map(str::to_owned).collect()
}

fn values(config: &Config) -> Vec<(&str, &str, String)> {
    config.shown().into_iter().map(|shown| (shown.table, shown.key, shown.toml)).collect()
}

#[test]
fn a_missing_and_an_empty_file_say_nothing() {
    let missing = Config::load(Path::new("/nonexistent/bascule.toml")).expect("defaults");
    let empty = parse("").expect("defaults");
    assert_eq!(values(&missing), values(&empty));
    assert!(missing.shown().iter().all(|shown| shown.origin == Origin::Default));
    // Whoever comes must prove who he is, and nothing goes in clear.
    assert_eq!(missing.relocation.hosts_allow, Allow::everywhere());
    assert_eq!((missing.security.certificates().ok(), missing.security.in_clear), (Some(None), Nets::default()));
}

#[test]
fn the_complete_file_is_the_defaults() {
    let text = Config::default().to_toml();
    let read = parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(values(&read), values(&Config::default()));
    assert!(read.shown().iter().all(|shown| matches!(shown.origin, Origin::File(..))), "{text}");
}

#[test]
fn every_setting_is_in_a_table_and_says_what_it_is_for() {
    Config::default().visit(&mut |Setting { table, key, about }, _| {
        assert!(TABLES.iter().any(|(known, _)| *known == table), "{table}");
        assert!(about.len() > 10, "{table}.{key}");
    });
    let all = values(&Config::default()).len();
    assert_eq!(all, 8 + 7 + 5 + 2 + crate::plan::Timeouts::NAMES.len() + crate::receive::Timeouts::NAMES.len() + 1);
}

#[test]
fn values_are_taken_and_know_their_line() {
    let text = "[relocation]\nport = 8003\nhosts-allow = ['10.99.0.0/24',\n  '/node[12]\\.example\\.org/']\naddress = ['xenbr1']\n\
        [timeouts.source]\nready = 1.5\n[timeouts]\ndestination.go = 7\n[log]\nlevel = 'debug'\n[state]\nhistory = 0x10\n";
    let config = parse(text).expect("a configuration");
    assert_eq!((config.relocation.port, config.relocation.hosts_allow.0.len()), (8003, 2));
    assert_eq!(config.timeouts.source.ready, Duration::from_millis(1500));
    assert_eq!(config.timeouts.destination.go, Duration::from_secs(7));
    assert_eq!((config.log.level, config.state.history), (Level::Debug, Count(16)));
    assert_eq!(config.origin("relocation", "hosts-allow").to_string(), "b.toml:3");
    assert_eq!(config.origin("timeouts.destination", "go").to_string(), "b.toml:9");
    assert_eq!(config.origin("relocation", "sessions"), Origin::Default);
}

#[test]
fn each_mistake_is_told_with_its_line_and_what_is_allowed() {
    let rows = [
        (
            "prot = 1",
            "b.toml:1: there is no key \"prot\"; there are relocation, security, guests, state, timeouts, log",
        ),
        ("[relocation]\nprot = 1", "b.toml:2: there is no key \"relocation.prot\", did you mean port?"),
        ("[relocatoin]\nport = 1", "b.toml:1: there is no table \"relocatoin\", did you mean relocation?"),
        ("[timeouts.sorce]\nready = 1", "b.toml:1: there is no table \"timeouts.sorce\", did you mean source?"),
        ("[log]\nport = 1", "b.toml:2: there is no key \"log.port\", did you mean port in [relocation]?"),
        ("relocation = 1", "b.toml:1: relocation is a table, not a key: [relocation]"),
        ("[relocation]\nport = 'x'", "b.toml:2: \"x\" is not a whole number from 1 to 65535"),
        ("[relocation]\nport = 0", "b.toml:2: 0 is not a whole number from 1 to 65535"),
        ("[relocation]\nenabled = 'yes'", "b.toml:2: \"yes\" is not true or false"),
        ("[relocation]\nsessions = 1001", "b.toml:2: 1001 is not a whole number from 1 to 1000"),
        ("[relocation]\nhosts-allow = '10.0.0.1'", "b.toml:2: \"10.0.0.1\" is not a list of addresses"),
        ("[relocation]\nhosts-allow = [\n'10.0.0.1',\n'10.0.0.300']", "b.toml:4: \"10.0.0.300\" is no address"),
        ("[relocation]\nhosts-allow = ['/(/']", "b.toml:2: /(/ is no regular expression"),
        ("[relocation]\naddress = ['10.0.0']", "b.toml:2: \"10.0.0\" is neither an address"),
        ("[guests]\nkernels = ['/boot', 'boot']", "b.toml:2: \"boot\" is not a path that begins with /"),
        ("[guests]\nnic-scripts = ['']", "b.toml:2: \"\" is not a name"),
        (
            "[guests]\nshared-disks = ['/dev/../etc']",
            "b.toml:2: \"/dev/../etc\" is not a path that begins with / and has no .. in it",
        ),
        (
            "[guests]\nbridges = ['xenbr0']",
            "b.toml:2: \"xenbr0\" is not OLD=NEW, two names of bridges such as xenbr0=br-lan",
        ),
        ("[security]\nkey = 'x'", "b.toml:2: \"x\" is not a path that begins with /"),
        ("\n[security]\nkey = '/x'", "b.toml:2: [security]: with certificates, authority, certificate, key and names"),
        ("[security]\nin-clear = ['node2.example.org']", "b.toml:2: \"node2.example.org\" is neither an address nor"),
        ("[state]\ndir = 'x'", "b.toml:2: \"x\" is not a path that begins with /"),
        ("[timeouts.source]\nready = 0.05", "b.toml:2: 0.05 is not a number of seconds from 0.1 to 86400"),
        ("[timeouts.source]\nready = nan", "b.toml:2: nan is not a number of seconds"),
        ("[timeouts.source]\nredy = 1", "b.toml:2: there is no key \"timeouts.source.redy\", did you mean ready?"),
        (
            "[log]\nlevel = 'trac'",
            "b.toml:2: \"trac\" is no level: it is warn, info, debug or trace (did you mean trace?)",
        ),
        ("[log]\nlevel = []", "b.toml:2: this array is not \"warn\""),
    ];
    for (text, expected) in rows {
        let found = complaints(text);
        assert!(found.len() == 1 && found[0].starts_with(expected), "{text:?}: {found:?}");
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let found = complaints("[relocation]\nport = 0\nenabled = 3\nhosts-allow = ['x', '//']\n[lok]\n");
    let at: Vec<&str> = found.iter().filter_map(|line| line.split(':').nth(1)).collect();
    assert_eq!(at, ["2", "3", "4", "4", "5"], "{found:?}");
    let many: String = (0..500).map(|n| format!("k{n} = 1\n")).collect();
    assert_eq!(complaints(&many).last().map(String::as_str), Some("b.toml:100: and 400 more"));
    assert!(complaints("[relocation\nport = ").len() >= 2);
}

#[test]
fn only_root_may_be_able_to_write_it() {
    assert_eq!(distrust(0o100_644, 0), None);
    for (mode, uid) in [(0o100_664, 0), (0o100_646, 0), (0o100_644, 1000)] {
        assert!(distrust(mode, uid).is_some(), "{mode:o} {uid}");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("bascule.toml");
    std::fs::write(&file, "[relocation]\nport = 1\n").expect("a file");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).expect("its mode");
    assert!(matches!(Config::load(&file), Err(Error::Untrusted { .. })));
    assert!(matches!(Config::load(dir.path()), Err(Error::Read { .. })));
}

proptest! {
    #[test]
    fn any_text_is_a_configuration_or_refused(text in "[\\[\\]=\"'.#\\n \\PC]*") {
        let _ = parse(&text);
    }

    #[test]
    fn any_value_of_a_known_key_is_taken_or_refused(value in "\\PC*", at in 0_usize..20) {
        let shown = Config::default().shown();
        let Shown { table, key, .. } = &shown[at % shown.len()];
        let _ = parse(&format!("[{table}]\n{key} = {value}\n"));
    }
}
