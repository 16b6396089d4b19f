//! The feature `serde`: states as DRBD's words, addresses as text, secrets left out, what is absent absent.

use drbd_nl::{ConnectionState, DiskState, NetConf, Protocol, ReplState, Role, Secret, Target};
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
