//! Files against what xl makes of them. The `.json` beside each sample is what `xl create -n SAMPLE` of Xen 4.17 printed.

use serde_json::Value;

use super::*;
use crate::xen::config::normalised;

const SAMPLES: [(&str, &str, &str); 4] = [
    ("pv", include_str!("samples/pv.cfg"), include_str!("samples/pv.json")),
    ("pvh", include_str!("samples/pvh.cfg"), include_str!("samples/pvh.json")),
    ("hvm", include_str!("samples/hvm.cfg"), include_str!("samples/hvm.json")),
    ("old", include_str!("samples/old.cfg"), include_str!("samples/old.json")),
];

#[test]
fn files_become_what_xl_makes_of_them() {
    for (name, file, printed) in SAMPLES {
        let config = parse(name, file).expect(name);
        let printed = serde_json::from_str(printed).expect("xl prints JSON");
        assert_eq!(essence(config.value().clone()), essence(printed), "{name}");
    }
}

#[test]
#[ignore = "needs Xen: libxl reads JSON only in a context"]
fn libxl_sees_exactly_what_xl_gives_it() {
    for (name, file, printed) in SAMPLES {
        let config = parse(name, file).expect(name);
        let printed: Value = serde_json::from_str(printed).expect("xl prints JSON");
        assert_eq!(normalised(&config).expect(name), printed, "{name}");
    }
}

/// Without what libxl leaves out or adds when it prints: actions at their default, and objects with nothing in them.
fn essence(value: Value) -> Value {
    let Value::Object(object) = value else { return value };
    let kept = object.into_iter().map(|(key, value)| (key, essence(value)));
    let empty = |value: &Value| value.as_object().is_some_and(serde_json::Map::is_empty);
    kept.filter(|(key, value)| !(empty(value) || key.starts_with("on_") && value == "destroy")).collect()
}

#[test]
fn the_command_line_replaces_what_the_file_says() {
    let mut file = tempfile::NamedTempFile::new().expect("tempfile");
    io::Write::write_all(&mut file, b"name='a'\nkernel='/k'\nmemory=128\nvif=['bridge=b0']").expect("write");
    let set = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let overrides = [set("name", "b c\"d"), set("memory", "0x100"), set("vif", "['mtu=1400']"), set("extra", "\"x\"")];
    let config = load(file.path(), &overrides).expect("load");
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
    let Err(Error::Problems { problems, .. }) = parse("t", "name='a'\nkernel='k'\nmemroy=1\n\npci=['01:00.0']\nvcpu=2")
    else {
        panic!("not refused");
    };
    let unknown = |key: &str, line, nearest| Problem::UnknownKey { key: key.to_owned(), line, nearest };
    assert_eq!(
        problems,
        [unknown("memroy", 3, Some("memory")), unknown("pci", 5, None), unknown("vcpu", 6, Some("vcpus"))]
    );
}

#[test]
fn values_that_make_no_sense_are_named_at_once() {
    let file = "type='xen'\nuuid='1'\nmemory=0\nvcpus=3\nmaxvcpus=2\ncmdline='a'\nextra='b'\ndisk=['vdev=xvda,axess=w']\n\
                vif=['brige=b']\non_crash='ignore'\nhap='yes'\nbootloader_args='x'";
    let error = parse("guest.cfg", file).expect_err("nonsense").to_string();
    for named in [
        "type",
        "uuid",
        "memory",
        "vcpus",
        "cmdline",
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
    let error = parse("t", "name='a'\nbuilder='hvm'\ntype='pv'\nkernel='k'").expect_err("contradiction").to_string();
    assert!(error.contains("contradicts builder"), "{error}");
    let error = parse("t", "name='a'\ntype='pvh'\nfirmware='pvgrub64'\nkernel='k'").expect_err("firmware").to_string();
    assert!(error.contains("firmware is understood for HVM domains only"), "{error}");
}

#[test]
fn a_file_that_breaks_the_grammar_or_cannot_be_read_is_refused() {
    assert!(matches!(parse("t", "name = = 1"), Err(Error::Syntax { .. })));
    let error = load("/nonexistent/guest.cfg", &[]).expect_err("no file");
    assert_eq!(error.to_string(), "Cannot read /nonexistent/guest.cfg");
}
