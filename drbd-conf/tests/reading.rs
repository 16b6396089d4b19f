//! What the reader promises beyond what drbdadm does: all mistakes at once, the place of each option, and bounds.

use std::collections::BTreeMap;
use std::path::Path;

use drbd_conf::{Config, Memory, Mistakes, Node, read};
use proptest::prelude::*;

const HOSTS: &str =
    "device minor 0; disk /dev/a; on alice { address 10.0.0.1:7788; } on bob { address 10.0.0.2:7788; }";

fn here(files: &[(&str, &str)]) -> Result<Config, Mistakes> {
    let files: BTreeMap<_, _> = files.iter().map(|(path, text)| (path.into(), text.as_bytes().to_vec())).collect();
    let node = Node { name: "alice".into(), addresses: vec!["10.0.0.1".parse().expect("an address")] };
    read(Path::new("/etc/drbd.conf"), &node, &Memory(files))
}

fn one(text: &str) -> Result<Config, Mistakes> {
    here(&[("/etc/drbd.conf", text)])
}

fn told(text: &str) -> Vec<String> {
    let mistakes = one(text).expect_err("mistakes");
    mistakes.told.iter().map(ToString::to_string).collect()
}

#[test]
fn all_mistakes_are_told_at_once_each_where_it_stands() {
    let told = told(
        "global { minor-count 1000; }\nresource r0 {\n net { protocol Q; ping-int 5 timeout 7; }\n on alice { address 10.0.0.1; }\n}\n\
         @ ;\nresource r1 { disk /dev/a; on alice { address 10.0.0.1:7788; } on bob { address 10.0.0.2:7788; } }\n",
    );
    let lines: Vec<&str> = told.iter().map(|mistake| mistake.split(": ").next().expect("a place")).collect();
    let expected = [1, 3, 3, 4, 6, 7, 7].map(|line| format!("/etc/drbd.conf:{line}"));
    assert_eq!(lines, expected, "{told:#?}");
    assert!(told[3].contains("':' is expected, not ;"), "{told:#?}");
}

#[test]
fn an_option_knows_its_file_and_line_however_it_came() {
    let config = here(&[
        ("/etc/drbd.conf", "include \"drbd.d/*.conf\";\ninclude \"drbd.d/*.res\";\n"),
        ("/etc/drbd.d/global.conf", "common {\n net {\n  allow-two-primaries;\n }\n disk { resync-rate 1M; }\n}\n"),
        ("/etc/drbd.d/r0.res", &format!("resource r0 {{\n net {{ protocol C; }}\n {HOSTS}\n}}\n")),
    ]);
    let config = config.expect("a configuration");
    let (connection, mine, peer) = config.resources[0].my_connections().next().expect("connected");
    let place = |name: &str| connection.net.get(name).map(|setting| (setting.place.to_string(), setting.inherited));
    assert_eq!(place("allow-two-primaries"), Some(("/etc/drbd.d/global.conf:3".into(), true)));
    assert_eq!(place("protocol"), Some(("/etc/drbd.d/r0.res:2".into(), true)));
    assert_eq!((mine.name.as_str(), peer.name.as_str()), ("alice", "bob"));
    let rate = config.resources[0].hosts[0].volumes[0].peer_device_options.get("resync-rate").expect("inherited");
    assert_eq!(rate.place.to_string(), "/etc/drbd.d/global.conf:5");
    assert_eq!(config.files.len(), 3);
}

#[test]
fn what_is_not_known_survives_and_is_remarked_upon() {
    let config = one(&format!("resource r0 {{ net {{ no-such-thing; new-limit 7; }} {HOSTS} }}")).expect("taken");
    let setting = config.resources[0].sections.net.get("new-limit").expect("kept");
    assert_eq!((setting.value.as_str(), setting.known), ("7", false));
    assert!(config.resources[0].sections.net.get("no-such-thing").is_some());
    assert!(config.remarks.iter().any(|remark| remark.what.contains("new-limit")), "{:?}", config.remarks);
}

#[test]
fn a_floating_host_is_ours_by_its_address() {
    let text = "resource r0 { device minor 0; disk /dev/a; floating 10.0.0.1:7788; floating ipv6 [fd00::2]:7788; }";
    let config = one(text).expect("taken");
    assert_eq!(config.resources[0].me, Some(0));
    assert_eq!(config.resources[0].hosts[1].names, ["ipv6 [fd00::2]:7788"]);
}

#[test]
fn what_has_a_mistake_draws_no_others_after_it() {
    let told = told(
        "resource low { disk @; }\nresource high { stacked-on-top-of low { device minor 1; address 10.0.0.1:1; } }\n",
    );
    assert_eq!(told.len(), 1, "{told:#?}");
}

#[test]
fn files_that_include_each_other_end() {
    let config = here(&[
        ("/etc/drbd.conf", "include \"a\";"),
        ("/etc/a", "include \"drbd.conf\"; include \"a\"; include \"*\";"),
    ]);
    assert_eq!(config.expect("taken").files.len(), 2);
    let chain: Vec<(String, String)> =
        (0..40).map(|n| (format!("/etc/f{n}"), format!("include \"f{}\";", n + 1))).collect();
    let mut files = vec![("/etc/drbd.conf", "include \"f0\";")];
    files.extend(chain.iter().map(|(path, text)| (path.as_str(), text.as_str())));
    assert!(here(&files).expect_err("too deep").to_string().contains("too deeply"));
    let template =
        here(&[("/etc/drbd.conf", "resource r { template-file t; }"), ("/etc/t", "common { template-file t; }")]);
    assert!(template.expect_err("a template's template").to_string().contains("no template"));
}

#[test]
fn a_message_stays_on_its_line_whatever_a_file_says() {
    let told = told("include \"a\u{19}b\"; resource \"x\u{7}\" { @ }");
    assert!(told.len() >= 3 && told.iter().all(|mistake| !mistake.contains(char::is_control)), "{told:?}");
}

#[test]
fn a_small_file_makes_no_large_configuration() {
    let mut text = String::from("common { net {");
    (0..125).for_each(|n| text.push_str(&format!(" x{n} 1;")));
    text.push_str(" } }\n");
    for n in 0..3000 {
        text.push_str(&format!("resource r{n} {{ device minor {n}; disk /dev/d{n}; "));
        text.push_str("on alice { address 127.0.0.1:1; } on bob { address 127.0.0.1:2; } }\n");
    }
    assert!(one(&text).is_err_and(|mistakes| mistakes.to_string().contains("settings")));
    let many = "resource r { @ }\n".repeat(1000);
    let mistakes = one(&many).expect_err("mistakes");
    assert!(mistakes.told.len() == 100 && mistakes.untold > 800);
    let nested = "skip {".repeat(200_000);
    assert!(one(&nested).is_err() && one(&"{".repeat(200_000)).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = read(Path::new("f"), &Node::default(), &Memory::one("f", bytes));
    }

    #[test]
    fn any_words_are_read_or_refused(words in proptest::collection::vec(word(), 0..120)) {
        let _ = one(&words.concat());
    }
}

fn word() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "resource r { ",
        "resource q { ",
        "common { ",
        "net { ",
        "disk { ",
        "on alice { ",
        "on bob { ",
        "} ",
        "; ",
        "floating 10.0.0.1:7788 ",
        "stacked-on-top-of r { ",
        "connection { ",
        "connection-mesh { ",
        "hosts alice bob; ",
        "host alice; ",
        "host bob ",
        "path { ",
        "volume 0 { ",
        "volume 1 { ",
        "device minor 0; ",
        "device /dev/drbd1; ",
        "disk /dev/a; ",
        "disk none; ",
        "meta-disk internal; ",
        "address 10.0.0.1:7788; ",
        "address 10.0.0.2:7788; ",
        "node-id 0; ",
        "node-id 1; ",
        "protocol C; ",
        "timeout 60; ",
        "timeout 70; ",
        "resync-rate 1M; ",
        "via proxy on alice { ",
        "inside 10.0.0.3:1; ",
        "outside 10.0.0.4:2; ",
        "skip { ",
        "syncer { ",
        "startup { ",
        "handlers { ",
        "include f; ",
        "template-file f; ",
        "al-extents 67; ",
        "\"",
        "# ",
    ])
}
