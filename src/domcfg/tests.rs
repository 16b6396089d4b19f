//! Files against what xl makes of them (`tests/xlcfg`), and what is said of files that make no sense.

use std::path::PathBuf;

use serde_json::Value;

use super::*;
use crate::xen::topology::Topology;

#[path = "../../tests/xlcfg/compare.rs"]
mod compare;

/// A node of the lab, where xl's results were captured.
fn node() -> Host {
    Host::known(Facts {
        topology: Topology { cpus_max: 1, cpus_online: 1, nodes: vec![vec![0]] },
        firmware_directories: vec![PathBuf::from("/usr/lib/xen-4.17/boot")],
    })
}

fn parsed(file: &str, text: &str) -> Result<DomainConfig, Error> {
    parse(file, text, &node()).map(|loaded| loaded.config)
}

/// What xl made of a file when it was captured.
fn printed(case: &compare::Case) -> Value {
    let path = format!("{}/tests/xlcfg/{}.json", env!("CARGO_MANIFEST_DIR"), case.name);
    serde_json::from_str(&std::fs::read_to_string(path).expect("xl's JSON is beside the file")).expect("JSON")
}

#[test]
fn files_become_what_xl_makes_of_them() {
    let mut wrong = Vec::new();
    for case in compare::cases("corpus").iter().chain(&compare::cases("differs")) {
        match parsed(&case.name, &case.text) {
            Ok(config) => {
                let found = compare::differences(config.value(), &printed(case));
                let expected = case.expected_differences();
                if !found.keys().eq(expected.iter()) {
                    wrong.push(format!("{}: {found:#?} instead of differences at {expected:?}", case.name));
                }
            }
            Err(error) => wrong.push(error.to_string()),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_xl_refuses_or_takes_for_something_else_is_refused_with_words() {
    for case in compare::cases("refused").iter().chain(&compare::cases("stricter")) {
        let error = parsed(&case.name, &case.text).expect_err(&case.name).to_string();
        let says = case.text.lines().find_map(|line| line.strip_prefix("# Says: ")).expect(&case.name);
        assert!(error.contains(says), "{}: no {says:?} in {error:?}", case.name);
    }
}

#[test]
fn a_difference_is_found_wherever_it_is() {
    let xl = compare::cases("corpus").iter().find(|case| case.name == "corpus/pci").map(printed).expect("the file");
    for (place, expected) in [
        ("/b_info/max_memkb", "b_info/max_memkb"),
        ("/pcidevs/3/vdevfn", "pcidevs/3/vdevfn"),
        ("/on_reboot", "on_reboot"),
    ] {
        let mut ours = xl.clone();
        *ours.pointer_mut(place).expect(place) = Value::from(1);
        assert!(compare::differences(&ours, &xl).keys().eq([expected]), "{place}");
    }
    let mut ours = xl.clone();
    ours["pcidevs"].as_array_mut().expect("devices").pop();
    let found = compare::differences(&ours, &xl);
    assert!(found.contains_key("pcidevs/count") && found.contains_key("pcidevs/4/name"), "{found:?}");
    assert!(compare::differences(&xl, &xl).is_empty());
}

#[test]
fn what_is_deprecated_or_without_effect_is_said() {
    let rows = [
        ("corpus/builder-hvm", "builder is deprecated: write type"),
        ("corpus/tsc-number", "tsc_mode is a number, which is deprecated: write tsc_mode = \"always_emulate\""),
        ("corpus/bootloader-string", "bootloader_args is a string, which is deprecated: write a list"),
        ("corpus/command-line-both", "cmdline is the whole command line: root and extra are ignored"),
        ("corpus/hvmloader", "kernel is ignored: firmware_override is what names another firmware"),
        ("corpus/cpus-list", "cpus names CPUs that this host has not: it has 1"),
        ("corpus/only-hvm", "spice is ignored: only a domain of type hvm has it"),
        ("corpus/vfb", "vnc is ignored, since vfb says what screens there are"),
    ];
    for (name, said) in rows {
        let cases = compare::cases("corpus");
        let case = cases.iter().find(|case| case.name == name).expect(name);
        let warnings = parse(name, &case.text, &node()).expect(name).warnings;
        assert!(warnings.iter().any(|warning| warning.to_string() == said), "{name}: {warnings:?}");
    }
    assert_eq!(parse("t", "name='a'\nkernel='k'\nvcpus=2\ncpus='all'", &node()).expect("all").warnings, []);
}

/// A key that no file of the corpus has is a key that nobody compared.
#[test]
fn every_key_is_in_the_corpus() {
    let set: Vec<String> = compare::cases("corpus")
        .iter()
        .chain(&compare::cases("differs"))
        .flat_map(|case| scan::keys(&case.text))
        .map(|(key, _)| key)
        .collect();
    let missing: Vec<_> =
        keys::KEYS.iter().map(|key| key.name).filter(|name| !set.iter().any(|key| key == name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_command_line_replaces_what_the_file_says() {
    let mut file = tempfile::NamedTempFile::new().expect("tempfile");
    io::Write::write_all(&mut file, b"name='a'\nkernel='/k'\nmemory=128\nvif=['bridge=b0']").expect("write");
    let set = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let overrides = [set("name", "b c\"d"), set("memory", "0x100"), set("vif", "['mtu=1400']"), set("extra", "\"x\"")];
    let Loaded { config, warnings } = load(file.path(), &overrides, &node()).expect("load");
    assert_eq!(warnings, []);
    assert_eq!(config.name(), "b c\"d");
    let value = |path| config.value().pointer(path).cloned();
    assert_eq!(value("/b_info/target_memkb"), Some(Value::from(256 * 1024)));
    assert_eq!(value("/nics/0/mtu"), Some(Value::from(1400)));
    assert_eq!(value("/nics/0/bridge"), None);
    assert_eq!(value("/b_info/cmdline"), Some(Value::from("x")));
    assert!(config.uuid().is_some_and(|uuid| !uuid.is_nil()));
}

#[test]
fn all_keys_that_are_not_understood_are_named_at_once() {
    let Err(Error::Problems { problems, .. }) =
        parsed("t", "name='a'\nkernel='k'\nmemroy=1\n\nfrobnicate=['01:00.0']\nvcpu=2")
    else {
        panic!("not refused");
    };
    let unknown = |key: &str, line, nearest| Problem::UnknownKey { key: key.to_owned(), line, nearest };
    assert_eq!(
        problems,
        [unknown("memroy", 3, Some("memory")), unknown("frobnicate", 5, None), unknown("vcpu", 6, Some("vcpus"))]
    );
}

#[test]
fn values_that_make_no_sense_are_named_at_once() {
    let file = "type='xen'\nuuid='1'\nmemory=0\nvcpus=3\nmaxvcpus=2\ndisk=['vdev=xvda,axess=w']\n\
                vif=['brige=b']\non_crash='ignore'\nhap='yes'\nbootloader_args=[['x']]";
    let error = parsed("guest.cfg", file).expect_err("nonsense").to_string();
    for named in [
        "type",
        "uuid",
        "memory",
        "vcpus",
        "disk",
        "vif",
        "on_crash",
        "hap",
        "name is missing",
        "kernel",
        "bootloader_args",
    ] {
        assert!(error.contains(named), "{named} in {error}");
    }
    assert!(error.starts_with("guest.cfg cannot be used: "), "{error}");
}

#[test]
fn the_types_exclude_each_other() {
    let error = parsed("t", "name='a'\nbuilder='hvm'\ntype='pv'\nkernel='k'").expect_err("contradiction").to_string();
    assert!(error.contains("contradicts builder"), "{error}");
    let error = parsed("t", "name='a'\ntype='pvh'\nfirmware='pvgrub64'\nkernel='k'").expect_err("firmware").to_string();
    assert!(error.contains("firmware and kernel exclude each other"), "{error}");
}

#[test]
fn a_file_that_breaks_the_grammar_or_cannot_be_read_is_refused() {
    assert!(matches!(parsed("t", "name = = 1"), Err(Error::Syntax { .. })));
    let error = load("/nonexistent/guest.cfg", &[], &node()).expect_err("no file");
    assert_eq!(error.to_string(), "Cannot read /nonexistent/guest.cfg");
}
