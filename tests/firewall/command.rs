//! `bascule check --firewall` as it is typed: what it prints, and its exit codes.

use std::process::{Command, Output};

use crate::host::{Host, load, run};

fn bascule(config: &str) -> Output {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("bascule.toml");
    std::fs::write(&file, config).expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_bascule"));
    command
        .arg("--config")
        .arg(file)
        .arg("--state-dir")
        .arg(dir.path())
        .args(["check", "--firewall"])
        .args(config.contains("# json").then_some("--json"));
    command.output().expect("it runs")
}

#[test]
#[ignore = "needs root and nft: cargo xtask test"]
fn exit_codes_tell_what_was_found() {
    let _host = Host::new();
    let closed = "table inet t { chain i { type filter hook input priority 0; policy drop; iif lo accept;
        meta l4proto ipv6-icmp accept; ip saddr 10.77.0.2 tcp dport 8002 accept; } }";
    let rows = [
        (5, "[relocation]\nhosts-allow = ['10.77.0.2']", ""),
        (0, "[relocation]\nhosts-allow = ['10.77.0.2']", closed),
        (5, "[relocation]\nhosts-allow = ['10.77.0.2', '10.77.0.9']", closed),
        (6, "[relocation]\nhosts-allow = ['10.77.0.2', 'node2.example.invalid']", closed),
        (0, "[relocation]\nhosts-allow = ['10.77.0.2', '/node[0-9].*/']", closed),
        (0, "[security]\nin-clear = ['10.77.0.2']", closed),
        (5, "[security]\nin-clear = ['10.77.200.3']", closed),
        (0, "[relocation]\nenabled = false", ""),
        (0, "[relocation]\naddress = ['127.0.0.1']", ""),
        (6, "[relocation]\naddress = ['nosuch0']", ""),
    ];
    for (code, config, rules) in rows {
        run("nft", &["flush", "ruleset"]);
        load(rules);
        let output = bascule(config);
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        assert_eq!(output.status.code(), Some(code), "{config}\n{}{}", said[0], said[1]);
    }
}

#[test]
#[ignore = "needs root and nft: cargo xtask test"]
fn what_is_printed_names_the_rule() {
    let _host = Host::new();
    load("table inet t { chain i { type filter hook input priority 0; ip saddr 10.77.0.2 tcp dport 8002 drop; } }");
    let output = bascule("[relocation]\nhosts-allow = ['10.77.0.2']\n");
    let text = String::from_utf8_lossy(&output.stdout);
    for words in ["inet t i handle 2", "error: Port 8002 is closed to the peer 10.77.0.2", "nft insert rule inet t i"] {
        assert!(text.contains(words), "{words} is not in\n{text}");
    }
    let json = bascule("[relocation]\nhosts-allow = ['10.77.0.2'] # json\n").stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    assert_eq!((&json["rows"][0]["fate"], &json["rows"][0]["wanted"]), (&"dropped".into(), &"accepted".into()));
}
