//! Against the running kernel, in a network namespace that ends with the test's thread. Two virtual interfaces stand for
//! netback's, a bridge is a bridge. Without the right to make a namespace they say so and are left out.

use std::net::Ipv4Addr;
use std::thread;

use netlink_packet_route::link::InfoKind;
use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::hotplug::tests::Memory;

const BACKEND: &str = "backend/vif/3/0";

fn arguments(words: &[&str]) -> Result<Arguments, Usage> {
    Arguments::parse(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>())
}

/// Runs a test in a namespace of its own, with a bridge `br0` (MTU 1400) and an interface `vif3.0` that is up and has an address.
fn in_namespace(test: fn(&Memory, &mut Links)) {
    let run = move || {
        if let Err(errno) = unshare(CloneFlags::CLONE_NEWNET) {
            return Err(format!("no network namespace: {errno}"));
        }
        let mut links = Links::open().map_err(|error| error.to_string())?;
        links.make("br0", InfoKind::Bridge).map_err(|error| format!("no bridge: {error}"))?;
        links.make("vif3.0", InfoKind::Veth).map_err(|error| format!("no veth: {error}"))?;
        let bridge = links.find("br0").unwrap().unwrap().index;
        links.change(bridge, Change::Mtu(1400)).unwrap();
        test(&Memory::default(), &mut links);
        Ok(())
    };
    if let Err(reason) = thread::spawn(run).join().unwrap() {
        skip(&reason);
    }
}

#[expect(clippy::print_stderr, reason = "a test that is left out says so")]
fn skip(reason: &str) {
    eprintln!("skipped: {reason}");
}

fn call<'a>(nodes: &'a Memory, port: Port, interface: &str) -> Call<'a> {
    Call::new(Backend::new(nodes, BACKEND).unwrap(), port, interface, None)
}

fn link(links: &mut Links, name: &str) -> Link {
    links.find(name).unwrap().unwrap_or_else(|| panic!("no interface {name}"))
}

#[test]
fn arguments_are_those_of_the_stock_script() {
    let online = arguments(&["online", "type_if=vif"]).unwrap();
    assert_eq!((online.action, online.port), (Action::Connect, Port::Vif));
    let offline = arguments(&["offline"]).unwrap();
    assert_eq!((offline.action, offline.port), (Action::Disconnect, Port::Vif));
    let add = arguments(&["add", "type_if=tap", "bridge=xenbr1"]).unwrap();
    assert_eq!((add.action, add.port, add.bridge.as_deref()), (Action::Connect, Port::Tap, Some("xenbr1")));
    assert_eq!(arguments(&["add", "type_if=vif"]).unwrap().action, Action::Nothing);
    assert_eq!(arguments(&["online", "type_if=tap"]).unwrap().action, Action::Nothing);
    assert!(arguments(&[]).is_err());
    assert!(arguments(&["up"]).is_err());
    assert!(arguments(&["online", "type_if=vlan"]).is_err());
}

#[test]
fn a_nic_is_connected_and_disconnected() {
    in_namespace(|nodes, links| {
        nodes.set("backend/vif/3/0/bridge", "br0");
        let call = call(nodes, Port::Vif, "vif3.0");
        call.connect().unwrap();
        let bridge = link(links, "br0");
        let port = link(links, "vif3.0");
        assert_eq!((port.master, port.is_up, port.mtu), (Some(bridge.index), true, 1400));
        assert_eq!(port.address, PORT_ADDRESS);
        assert_eq!(nodes.get("backend/vif/3/0/hotplug-status").as_deref(), Some("connected"));
        assert_eq!(nodes.get("/local/domain/3/device/vif/0/mtu").as_deref(), Some("1400"));
        call.connect().unwrap(); // once more: nothing is missing afterwards
        call.disconnect().unwrap();
        let port = link(links, "vif3.0");
        assert_eq!((port.master, port.is_up), (None, false));
    });
}

#[test]
fn the_first_bridge_serves_when_none_is_named() {
    in_namespace(|nodes, links| {
        links.make("br1", InfoKind::Bridge).unwrap();
        nodes.set("backend/vif/3/0/mtu", "1300");
        call(nodes, Port::Vif, "vif3.0").connect().unwrap();
        let bridge = link(links, "br0");
        let port = link(links, "vif3.0");
        assert_eq!((port.master, port.mtu), (Some(bridge.index), 1300));
    });
}

#[test]
fn a_nic_gets_the_name_that_its_domain_gives_it() {
    in_namespace(|nodes, links| {
        nodes.set("backend/vif/3/0/vifname", "web0");
        let call = call(nodes, Port::Vif, "vif3.0");
        call.connect().unwrap();
        assert!(link(links, "web0").master.is_some());
        assert_eq!(links.find("vif3.0").unwrap(), None);
        call.connect().unwrap();
        call.disconnect().unwrap();
        assert_eq!(link(links, "web0").master, None);
        links.make("vif3.0", InfoKind::Veth).unwrap();
        assert!(matches!(call.connect(), Err(Error::NameTaken { name, .. }) if name == "web0"));
    });
}

#[test]
fn an_emulated_nic_has_no_status_of_its_own() {
    in_namespace(|nodes, links| {
        nodes.set("backend/vif/3/0/vifname", "web0");
        links.make("vif3.0-emu", InfoKind::Veth).unwrap();
        call(nodes, Port::Tap, "vif3.0-emu").connect().unwrap();
        assert!(link(links, "web0-emu").master.is_some());
        assert_eq!(nodes.get("backend/vif/3/0/hotplug-status"), None);
    });
}

#[test]
fn a_wrong_bridge_is_named() {
    in_namespace(|nodes, links| {
        nodes.set("backend/vif/3/0/bridge", "br7");
        let call = call(nodes, Port::Vif, "vif3.0");
        assert!(matches!(call.connect(), Err(Error::UnknownBridge { bridge }) if bridge == "br7"));
        nodes.set("backend/vif/3/0/bridge", "lo");
        assert!(matches!(call.connect(), Err(Error::NotABridge { .. })));
        assert_eq!(link(links, "vif3.0").master, None);
        assert_eq!(nodes.get("backend/vif/3/0/hotplug-status"), None);
    });
}

#[test]
fn an_old_bridge_s_name_is_understood() {
    in_namespace(|nodes, links| {
        links.make("eth7", InfoKind::Bridge).unwrap();
        nodes.set("backend/vif/3/0/bridge", "xenbr7");
        call(nodes, Port::Vif, "vif3.0").connect().unwrap();
        let bridge = link(links, "eth7");
        assert_eq!(link(links, "vif3.0").master, Some(bridge.index));
    });
}

#[test]
fn an_interface_that_is_gone_is_no_error_at_the_end() {
    in_namespace(|nodes, _| {
        call(nodes, Port::Vif, "vif9.0").disconnect().unwrap();
        assert!(matches!(call(nodes, Port::Vif, "vif9.0").connect(), Err(Error::NoInterface { .. })));
    });
}

#[test]
fn a_port_has_no_addresses_of_its_own() {
    in_namespace(|nodes, links| {
        let index = link(links, "vif3.0").index;
        links.add_address(index, Ipv4Addr::new(10, 9, 8, 7)).unwrap();
        assert_eq!(links.ipv4_addresses(index).unwrap(), 1);
        call(nodes, Port::Vif, "vif3.0").connect().unwrap();
        // IPv6 may give it a link-local one again once it is up.
        assert_eq!(links.ipv4_addresses(index).unwrap(), 0);
    });
}
