//! xend's configuration. What is imported is a configuration of ours, whatever stood there: nothing of it leaves its comment or its
//! value, and nothing lets everybody in.

use std::net::IpAddr;

use bascule::config::xend;

use super::configuration::{read_back, values};

/// Hosts that nobody means to name all at once.
const STRANGERS: [IpAddr; 2] =
    [IpAddr::V4(std::net::Ipv4Addr::new(240, 0, 0, 1)), IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)];

pub(crate) fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(imported) = xend::import(text) else { return };
    let written = imported.to_toml();
    assert_eq!(values(&read_back(&written)), values(&imported.config), "{written}");
    let allow = &imported.config.relocation.hosts_allow;
    assert!(
        !STRANGERS.iter().all(|stranger| allow.by_address(*stranger) == Some(true)),
        "everybody is let in: {allow:?}"
    );
    assert!(!imported.notes.is_empty());
}
