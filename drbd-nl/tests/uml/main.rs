//! The real DRBD 8.4 module, in a user-mode Linux that `cargo xtask uml` boots around this program.

mod modules;
mod pair;

use std::time::{Duration, Instant};

use drbd_nl::{
    CfgContext, Change, Command, Contents, Dialect, Drbd, Error, Event, Events, NO_MINOR, Object, ObjectId, Packet,
    Refusal, Role,
    wire::{self, Message, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};
use pair::{ENDS, Pair, roles, target, until};

#[test]
#[ignore = "needs the real module: cargo xtask test"]
fn a_pair_comes_up_and_goes_down() {
    let mut pair = Pair::connected();
    assert_eq!(pair.drbd.dialect(), Dialect::V84);
    let [end, other] = pair.ends();
    assert_eq!(end.volumes.iter().map(|volume| (volume.volume, volume.minor)).collect::<Vec<_>>(), [(0, 0), (1, 2)]);
    assert_eq!(end.volumes[1].backing_dev.as_deref(), Some("/dev/ubdc"));
    // 32 MiB less the metadata.
    assert!((60_000..65_536).contains(&end.volumes[0].size_sectors), "{end:?}");
    assert_eq!(end.volumes[0].current_uuid & !1, other.volumes[0].current_uuid & !1);
    assert_eq!(end.volumes[0].role, Some(Role::Secondary));
    let connection = &end.connections[0];
    assert_eq!(
        (connection.my_addr.to_string(), connection.peer_addr.to_string()),
        ("127.0.0.1:7701".into(), "127.0.0.1:7702".into())
    );
    assert_eq!(connection.net.shared_secret.as_ref().map(drbd_nl::Secret::expose), Some("open sesame"));
    assert!(!format!("{end:?}").contains("sesame"));
    assert_eq!(pair.drbd.status().unwrap(), [end, other]);
    drop(pair);
    let mut drbd = Drbd::open().unwrap();
    assert_eq!(drbd.status().unwrap(), []);
    assert_eq!(drbd.resource("r0").unwrap(), None);
}

#[test]
#[ignore = "needs the real module: cargo xtask test"]
fn two_primaries_are_refused_until_one_end_allows_them_and_both_have_heard() {
    let mut pair = Pair::connected();
    assert_eq!(pair.promote(0).unwrap(), [Change::Done, Change::Done]);
    let refused = pair.promote(1).unwrap_err();
    assert_eq!(refused.refusal(), Some(Refusal::TwoPrimaries), "{refused}");

    let before = pair.ends();
    pair.allow_two(true);
    pair.promote(1).unwrap();
    let both = (Role::Primary, Role::Primary);
    pair.wait("two Primaries", |ends| roles(ends) == [both, both]);
    let connection = pair.ends()[0].connections[0].clone();
    let forbidden = pair.drbd.set_two_primaries(ENDS[0], &connection, false).unwrap_err();
    assert_eq!(forbidden.refusal(), Some(Refusal::NeedAllowTwoPrimaries), "{forbidden}");

    pair.demote(0).unwrap();
    pair.allow_two(false);
    let after = pair.wait("one Primary", |ends| {
        roles(ends) == [(Role::Secondary, Role::Primary), (Role::Primary, Role::Secondary)]
    });
    // One option changed and came back; all others are as they were, the secret too.
    assert_eq!(after[0].connections[0].net, before[0].connections[0].net);
    assert_eq!(after[1].connections[0].net, before[1].connections[0].net);
    pair.demote(1).unwrap();
}

#[test]
#[ignore = "needs the real module: cargo xtask test"]
fn a_second_demotion_has_nothing_to_do() {
    let mut pair = Pair::connected();
    pair.promote(0).unwrap();
    assert_eq!(pair.demote(0).unwrap(), [Change::Done; 2]);
    assert_eq!(pair.demote(0).unwrap(), [Change::NothingToDo; 2]);
}

#[test]
#[ignore = "needs the real module: cargo xtask test"]
fn a_role_belongs_to_one_volume() {
    let mut pair = Pair::connected();
    pair.drbd.primary(&target(0, 1), false).unwrap();
    let [end, _] = pair.ends();
    assert_eq!(end.role, Role::Primary);
    assert_eq!(
        end.volumes.iter().map(|volume| volume.role).collect::<Vec<_>>(),
        [Some(Role::Secondary), Some(Role::Primary)]
    );
}

#[test]
#[ignore = "needs the real module: cargo xtask test"]
fn an_open_device_is_not_demoted() {
    let mut pair = Pair::connected();
    pair.promote(0).unwrap();
    let user = pair::open(0, 0);
    let refused = pair.drbd.secondary(&target(0, 0)).unwrap_err();
    assert_eq!(refused.refusal(), Some(Refusal::DeviceInUse), "{refused}");
    drop(user);
    assert_eq!(pair.drbd.secondary(&target(0, 0)).unwrap(), Change::Done);
}

#[test]
#[ignore = "needs the real module: cargo xtask test"]
fn an_unknown_resource_is_none_though_the_kernel_never_ends_such_a_dump() {
    let _pair = Pair::attached();
    let mut drbd = Drbd::open().unwrap();
    assert_eq!(drbd.resource("nope").unwrap(), None);
    assert_eq!(
        drbd.primary(&drbd_nl::Target { resource: "nope".into(), minor: 77 }, false).unwrap_err().refusal(),
        Some(Refusal::MinorInvalid)
    );

    let codes = raw_dump_of_unknown_resource(50);
    assert_eq!(codes, [158; 50]);
}

/// Reads `records` of a dump that a resource filter should have ended, as raw as can be.
fn raw_dump_of_unknown_resource(records: usize) -> Vec<i32> {
    let mut socket = Socket::new(NETLINK_GENERIC).unwrap();
    socket.bind_auto().unwrap();
    let context = CfgContext { resource_name: Some("nope".into()), ..CfgContext::default() };
    let contents = Contents { context: Some(context), ..Contents::default() };
    let packet = Packet::request(Command::GET_DEVICES, NO_MINOR, &contents, Dialect::V84);
    let kind = family_id(&socket);
    let flags = NLM_F_REQUEST | NLM_F_DUMP;
    let message = Message { kind, flags, sequence: 9, port: 0, payload: packet.emit() };
    socket.send_to(&message.emit(), &SocketAddr::new(0, 0), 0).unwrap();
    let mut codes = Vec::new();
    while codes.len() < records {
        let (datagram, _) = socket.recv_from_full().unwrap();
        for message in wire::messages(&datagram).map(Result::unwrap) {
            assert_ne!(message.kind, NLMSG_DONE, "this kernel ends the dump");
            codes.push(Packet::parse(&message.payload).unwrap().code);
        }
    }
    codes.truncate(records);
    codes
}

fn family_id(socket: &Socket) -> u16 {
    let mut payload = vec![3, 1, 0, 0]; // CTRL_CMD_GETFAMILY
    wire::Attr { kind: 2, value: b"drbd\0".to_vec() }.emit(&mut payload);
    let message = Message { kind: drbd_nl::GENL_ID_CTRL, flags: NLM_F_REQUEST, sequence: 1, port: 0, payload };
    socket.send_to(&message.emit(), &SocketAddr::new(0, 0), 0).unwrap();
    let (datagram, _) = socket.recv_from_full().unwrap();
    let message = wire::messages(&datagram).next().unwrap().unwrap();
    drbd_nl::Family::parse(&message).unwrap().unwrap().family_id.unwrap()
}

#[test]
#[ignore = "needs the real module: cargo xtask test"]
fn events_tell_what_exists_and_then_each_change() {
    let mut pair = Pair::connected();
    let mut events = Events::open().unwrap();
    let snapshot = until(&mut events, &[&|event| *event == Event::SnapshotDone]);
    // Per end: the resource, a connection, two volumes, two volumes of the connection.
    assert_eq!(snapshot.len(), 2 * 6 + 1, "{snapshot:#?}");
    assert!(snapshot[..12].iter().all(|event| matches!(event, Event::Exists(_))));

    pair.promote(0).unwrap();
    until(&mut events, &[&|event| is_role(event, Role::Primary), &|event| is_peer_role(event, Role::Primary)]);
    pair.demote(0).unwrap();
    until(&mut events, &[&|event| is_role(event, Role::Secondary), &|event| is_peer_role(event, Role::Secondary)]);
    drop(pair);
    let gone = ENDS.map(|name| Event::Destroyed(ObjectId::Resource { name: name.to_owned() }));
    until(&mut events, &[&|event| *event == gone[0], &|event| *event == gone[1]]);
    assert_eq!(events.next(Instant::now() + Duration::from_millis(50)).unwrap(), None);
}

fn is_role(event: &Event, role: Role) -> bool {
    matches!(event, Event::Changed(Object::Resource(resource)) if resource.name == "r0" && resource.role == role)
}

fn is_peer_role(event: &Event, role: Role) -> bool {
    matches!(event, Event::Changed(Object::Connection { resource, connection })
        if resource == "r1" && connection.peer_role == role)
}

#[test]
#[ignore = "needs the real module: cargo xtask test"]
fn a_split_brain_is_healed_by_discarding_one_side() {
    let mut pair = Pair::connected();
    pair.allow_two(true);
    (0..2).for_each(|end| drop(pair.promote(end).unwrap()));
    // Both get a new data generation when the link between two Primaries breaks.
    pair.drbd.disconnect(&pair::peer(0), true).unwrap();
    pair.wait("r0 without its connection", |ends| ends[0].connections.is_empty());
    (0..2).for_each(|end| drop(pair.demote(end).unwrap()));
    let [end, other] = pair.ends();
    assert_ne!(end.volumes[0].current_uuid & !1, other.volumes[0].current_uuid & !1);

    // They meet again, and at least one of them stands alone, its addresses forgotten; the other may be about to.
    pair.connect(0, false);
    let ends = pair.wait("the split brain", |ends| ends.iter().any(|end| end.connections.is_empty()));
    for (number, end) in ends.iter().enumerate().filter(|(_, end)| !end.connections.is_empty()) {
        match pair.drbd.disconnect(&end.connections[0].peer(ENDS[number]), true) {
            Err(error) if error.refusal() == Some(Refusal::InvalidRequest) => {}
            disconnected => assert_eq!(disconnected.unwrap(), Change::Done),
        }
    }
    pair.wait("both alone", |ends| ends.iter().all(|end| end.connections.is_empty()));
    pair.connect(0, false);
    pair.connect(1, true);
    let ends = pair.wait("the cure", |ends| ends.iter().all(|end| pair::is_connected(end) && pair::is_up_to_date(end)));
    assert_eq!(ends[0].volumes[0].current_uuid & !1, ends[1].volumes[0].current_uuid & !1);
}

#[test]
#[ignore = "needs the real module: cargo xtask test"]
fn a_module_that_was_loaded_anew_is_found_again() {
    let mut drbd = Drbd::open().unwrap();
    let mut events = Events::open().unwrap();
    // The kernel does not let go of a module while a dump of its has not been read to the end.
    until(&mut events, &[&|event| *event == Event::SnapshotDone]);
    assert_eq!(events.next(Instant::now() + Duration::from_millis(50)).unwrap(), None);
    modules::unload(c"drbd").unwrap();
    assert!(matches!(Drbd::open(), Err(Error::NotLoaded)));
    assert!(matches!(drbd.status(), Err(Error::NotLoaded)));
    modules::load(modules::DRBD).unwrap();
    assert_eq!(drbd.status().unwrap(), []);
    let told =
        std::iter::from_fn(|| Some(events.next(Instant::now() + Duration::from_secs(1)))).take(3).find_map(Result::err);
    assert!(matches!(told, Some(Error::NotLoaded)), "{told:?}");
}
