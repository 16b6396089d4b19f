//! Files and kernels that agree, and such that do not.

use drbd_conf::{Memory, Node, read};
use drbd_nl::Protocol;

use super::*;

fn read_text(text: &str) -> Result<Config, Mistakes> {
    let node = Node { name: "a".into(), addresses: Vec::new() };
    read("/etc/drbd.conf".as_ref(), &node, &Memory::one("/etc/drbd.conf", text))
}

/// Files with r0; `options` is its second line.
fn files(options: &str) -> Config {
    let hosts = "device minor 7; disk /dev/vg/a; on a { address 10.0.0.1:7788; } on b { address 10.0.0.2:7788; }";
    read_text(&format!("resource r0 {{\n{options}\n{hosts}\n}}\n")).expect("a configuration")
}

/// The kernel as `files("")` would have it, as far as it is asked.
fn kernel() -> Now {
    let net = NetConf {
        wire_protocol: Some(Protocol::C),
        two_primaries: Some(false),
        timeout: Some(60),
        after_sb_0p: Some(0),
        ..NetConf::default()
    };
    let ends = ["10.0.0.1:7788", "10.0.0.2:7788"].map(|end| end.parse().ok());
    let conf = DiskConf { on_io_error: Some(2), disk_barrier: Some(false), ..DiskConf::default() };
    Now {
        name: "r0".into(),
        connections: vec![NowConnection { peer_node_id: None, mine: ends[0], peers: ends[1], net }],
        volumes: vec![NowVolume { number: 0, minor: 7, disk: Some("/dev/vg/a".into()), conf }],
    }
}

fn look(config: &Config, kernel: &[Now], migrating: &[String]) -> Vec<Finding> {
    review(&Seen { files: Ok(Some(config)), kernel: Some((kernel, Dialect::V84)), migrating, node: "a", uname: "a" })
}

fn codes(findings: &[Finding]) -> Vec<&str> {
    findings.iter().map(|finding| finding.code.as_str()).collect()
}

#[test]
fn where_both_agree_there_is_nothing_to_say() {
    assert_eq!(look(&files(""), &[kernel()], &[]), []);
    assert_eq!(
        look(&files("net { protocol C; allow-two-primaries no; after-sb-0pri disconnect; }"), &[kernel()], &[]),
        []
    );
}

#[test]
fn each_danger_in_the_files_is_told_with_its_line() {
    let rows = [
        ("net { allow-two-primaries; }", "two-primaries-permanent"),
        ("net { protocol A; }", "protocol"),
        ("protocol B;", "protocol"),
        ("net { after-sb-0pri discard-younger-primary; }", "split-brain-policy"),
        ("net { after-sb-0pri discard-node-b; }", "split-brain-policy"),
        ("net { after-sb-1pri discard-secondary; }", "split-brain-policy"),
        ("net { after-sb-2pri violently-as0p; }", "split-brain-policy"),
        ("net { after-sb-2pri call-pri-lost-after-sb; }", "split-brain-policy"),
        ("net { rr-conflict violently; }", "split-brain-policy"),
        ("disk { fencing resource-only; }", "fencing"),
        ("net { fencing resource-and-stonith; }", "fencing"),
        ("handlers { before-resync-target /bin/snapshot; }", "handler"),
        ("handlers { outdate-peer /bin/outdate; }", "handler"),
        ("handlers { pri-on-incon-degr \"reboot -f\"; }", "handler"),
    ];
    for (options, code) in rows {
        let findings = look(&files(options), &[], &[]);
        let found = findings.iter().find(|finding| finding.code == code);
        let found = found.unwrap_or_else(|| panic!("{options}: {findings:?}"));
        assert!(found.found.contains("(/etc/drbd.conf:2)"), "{}", found.found);
        assert!(!found.remedy.is_empty());
    }
}

#[test]
fn what_is_harmless_is_no_finding() {
    for options in [
        "net { after-sb-0pri discard-zero-changes; }",
        "net { fencing dont-care; }",
        "net { after-sb-1pri disconnect; }",
    ] {
        assert_eq!(codes(&look(&files(options), &[], &[])), ["resource-down"], "{options}");
    }
}

#[test]
fn set_now_is_told_from_set_for_good() {
    let mut now = kernel();
    now.connections[0].net.two_primaries = Some(true);
    assert_eq!(codes(&look(&files(""), &[now.clone()], &[])), ["two-primaries-now"]);
    assert_eq!(look(&files(""), &[now.clone()], &["r0".into()]), []);
    assert_eq!(codes(&look(&files("net { allow-two-primaries; }"), &[now], &[])), ["two-primaries-permanent"]);
    let findings = look(&files("net { timeout 70; }"), &[kernel()], &[]);
    assert_eq!(findings[0].found, "r0 with b: timeout is 60 now and 70 in the files (/etc/drbd.conf:2)");
}

#[test]
fn what_lies_elsewhere_than_the_files_say_is_told() {
    let change = |change: fn(&mut Now)| {
        let mut now = kernel();
        change(&mut now);
        look(&files(""), &[now], &[])
    };
    type Row = (fn(&mut Now), &'static str);
    let rows: [Row; 7] = [
        (|now| now.connections.clear(), "not-connected"),
        (|now| now.connections[0].peers = "10.0.0.3:7788".parse().ok(), "address-differs"),
        (|now| now.volumes.clear(), "volume-down"),
        (|now| now.volumes[0].minor = 8, "minor-differs"),
        (|now| now.volumes[0].disk = None, "volume-detached"),
        (|now| now.volumes[0].disk = Some("/dev/vg/b".into()), "disk-differs"),
        (|now| now.volumes[0].conf.on_io_error = Some(0), "setting-differs"),
    ];
    for (changed, code) in rows {
        assert_eq!(codes(&change(changed)), [code]);
    }
}

#[test]
fn what_is_on_one_side_only_is_told() {
    let strange = Now { name: "other".into(), ..kernel() };
    assert_eq!(codes(&look(&files(""), &[strange], &[])), ["resource-down", "resource-not-in-files"]);
    let config = files("");
    assert_eq!(down(&config, &[]).iter().map(|resource| resource.name.as_str()).collect::<Vec<_>>(), ["r0"]);
    assert!(down(&config, &["r0"]).is_empty());
    let unseen = Seen { files: Ok(None), kernel: None, migrating: &[], node: "a", uname: "a" };
    assert_eq!(codes(&review(&unseen)), ["drbd-conf-missing"]);
    assert_eq!(codes(&review(&Seen { files: Ok(Some(&config)), ..unseen })), ["drbd-not-loaded"]);
}

#[test]
fn a_file_with_mistakes_is_an_error_for_each() {
    let mistakes = read_text("resource r0 { @; net { protocol Q; } }").expect_err("mistakes");
    let seen = Seen { files: Err(&mistakes), kernel: None, migrating: &[], node: "a", uname: "a" };
    let findings = review(&seen);
    assert_eq!(codes(&findings), ["drbd-conf-mistake", "drbd-conf-mistake"]);
    assert!(findings.iter().all(|finding| finding.severity == Severity::Error));
}
