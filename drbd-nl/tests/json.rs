//! The feature `serde`: states as DRBD's words, addresses as text, secrets left out, what is absent absent.

use drbd_nl::{Address, ConnectionState, DiskState, NetConf, Peer, Protocol, ReplState, Role, Secret, Target};
use serde_json::json;

#[test]
fn states_are_words() {
    let states = json!([Role::Primary, DiskState::UpToDate, ConnectionState::WfConnection, ReplState::SyncTarget]);
    assert_eq!(states, json!(["Primary", "UpToDate", "WFConnection", "SyncTarget"]));
    assert_eq!(json!(DiskState::Other(77)), json!("unknown(77)"));
    assert_eq!(json!(Target { resource: "r0".into(), minor: 3 }), json!({ "resource": "r0", "minor": 3 }));
}

#[test]
fn options_are_those_that_are_there_and_secrets_do_not_show() {
    let net = NetConf {
        shared_secret: Some(Secret::new("open sesame")),
        wire_protocol: Some(Protocol::C),
        two_primaries: Some(false),
        ..NetConf::default()
    };
    assert_eq!(json!(net), json!({ "shared_secret": "(secret)", "wire_protocol": "C", "two_primaries": false }));
}

#[test]
fn options_and_addresses_come_back_and_secrets_do_not() {
    let net = NetConf {
        shared_secret: Some(Secret::new("open sesame")),
        cram_hmac_alg: Some("sha1".to_owned()),
        wire_protocol: Some(Protocol::Other(7)),
        ping_int: Some(10),
        two_primaries: Some(false),
        ..NetConf::default()
    };
    let back: NetConf = serde_json::from_value(json!(net)).unwrap();
    assert_eq!(back, NetConf { shared_secret: None, ..net });
    let address = |text: &str| text.parse::<Address>().unwrap();
    let peer = Peer {
        resource: "r0".to_owned(),
        peer_node_id: None,
        my_addr: address("10.0.0.1:7789"),
        peer_addr: address("[fe80::1%3]:7789"),
    };
    assert_eq!(serde_json::from_value::<Peer>(json!(peer)).unwrap(), peer);
    assert!(serde_json::from_value::<Protocol>(json!("D")).is_err());
}
