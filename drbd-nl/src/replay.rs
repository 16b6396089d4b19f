//! Tests of status and events against what real kernels answered: the captures, played back.

#[path = "../examples/decode/pcap.rs"]
mod pcap;

use std::time::Instant;

use crate::{
    ConnectionState, Contents, Dialect, DiskState, Drbd, Event, Events, Object, Packet, Protocol, ReplState,
    ResourceStatus, Role,
    fake::{self, FakeKernel, PORT, Reply},
    wire::{self, Message, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE},
};

const V84: &[u8] = include_bytes!("../tests/captured/drbd-8.4.11.pcap");
const V9: &[u8] = include_bytes!("../tests/captured/drbd-9.2.12.pcap");

/// Answers each request as the captured kernel answered the same one: the fullest answer that was captured to its end, the first if several are. A request that was never
/// captured is refused, a dump as unknown to netlink, another as about an unknown minor.
fn replay(capture: &'static [u8]) -> Box<FakeKernel> {
    let captured: Vec<Message> =
        pcap::generic_netlink(capture).unwrap().into_iter().flat_map(wire::messages).map(Result::unwrap).collect();
    let answers = move |request: &Message| {
        let asked = captured.iter().filter(|message| is_request(message) && is_same(message, request));
        let answers = asked.map(|asked| {
            let same = captured.iter().filter(|message| !is_request(message) && message.sequence == asked.sequence);
            same.map(|answer| readdressed(answer, request)).collect::<Vec<_>>()
        });
        let whole = answers.filter(|answer| !is_dump(request) || is_done(answer));
        match whole.rev().max_by_key(Vec::len) {
            Some(answer) => answer.iter().map(|message| Reply::Datagram(message.emit())).collect(),
            None if is_dump(request) => vec![fake::failure(request, nix::libc::EOPNOTSUPP)],
            None => vec![fake::answer(request, 127, &Contents::default())],
        }
    };
    FakeKernel::new(answers).0
}

fn is_request(message: &Message) -> bool {
    message.flags & NLM_F_REQUEST != 0
}

fn is_dump(request: &Message) -> bool {
    request.flags & NLM_F_DUMP == NLM_F_DUMP
}

fn is_done(answer: &[Message]) -> bool {
    answer.last().is_some_and(|message| message.kind == NLMSG_DONE)
}

/// The same command about the same object; the way in which the capture's client set flag bits and its generic header's version may differ.
fn is_same(message: &Message, request: &Message) -> bool {
    if message.kind != request.kind || message.flags != request.flags {
        return false;
    }
    if message.kind == crate::GENL_ID_CTRL {
        return true;
    }
    let [a, b] = [message, request].map(|message| Packet::parse(&message.payload).unwrap());
    let contents = |packet: &Packet| packet.contents(Dialect::V84).unwrap();
    a.command == b.command && a.minor == b.minor && contents(&a) == contents(&b)
}

/// For the one who asks now; the initial state is addressed to nobody.
fn readdressed(answer: &Message, request: &Message) -> Message {
    let port = if answer.port == 0 { 0 } else { PORT };
    Message { sequence: request.sequence, port, ..answer.clone() }
}

#[test]
fn status_of_8_4() {
    // This capture has no whole dump of all volumes, but one of each resource's.
    let mut drbd = Drbd::over(replay(V84)).unwrap();
    let r0 = drbd.resource("r0").unwrap().unwrap();
    let [volume] = &r0.volumes[..] else { panic!("{r0:?}") };
    assert_eq!((volume.volume, volume.minor, volume.size_sectors), (0, 0, 65456));
    assert_eq!(volume.backing_dev.as_deref(), Some("/dev/loop0"));
    let [connection] = &r0.connections[..] else { panic!("{r0:?}") };
    assert_eq!(connection.my_addr.to_string(), "127.0.0.1:7701");
    assert_eq!(connection.peer_addr.to_string(), "127.0.0.1:7702");
    assert_eq!(connection.state, ConnectionState::Connected);
    assert_eq!(connection.net.wire_protocol, Some(Protocol::C));
    assert_eq!(connection.peer_devices.len(), 1);
    assert_eq!((connection.name.as_deref(), connection.peer_node_id), (None, None));
}

#[test]
fn status_of_9() {
    let [r0, r1]: [ResourceStatus; 2] = Drbd::over(replay(V9)).unwrap().status().unwrap().try_into().unwrap();
    assert_eq!(r0.options.node_id, Some(0));
    assert_eq!(r1.options.node_id, Some(1));
    let [volume] = &r0.volumes[..] else { panic!("{r0:?}") };
    assert_eq!(volume.disk_state, DiskState::UpToDate);
    assert_eq!((volume.is_open, volume.has_quorum), (Some(false), Some(true)));
    let [connection] = &r0.connections[..] else { panic!("{r0:?}") };
    assert_eq!((connection.name.as_deref(), connection.peer_node_id), (Some("node1"), Some(1)));
    assert_eq!((connection.state, connection.peer_devices.len()), (ConnectionState::Connected, 1));
    assert_eq!(connection.peer_devices[0].repl_state, ReplState::Established);
    assert_eq!(connection.my_addr.to_string(), "127.0.0.1:7701");
    assert!(connection.paths[0].established);
    assert!(connection.net.shared_secret.is_some());
}

/// The kernel gives the volume's number where the minor should be when this dump is filtered.
#[test]
fn a_volume_of_a_connection_is_found_by_its_number_and_not_by_its_minor() {
    let r1 = Drbd::over(replay(V84)).unwrap().resource("r1").unwrap().unwrap();
    assert_eq!(r1.volumes[0].minor, 1);
    assert_eq!(r1.connections[0].peer_devices[0].volume, 0);
}

#[test]
fn events_of_both() {
    for (capture, objects) in [(V84, 4), (V9, 5)] {
        let mut events = Events::over(replay(capture)).unwrap();
        let seen: Vec<Event> = std::iter::from_fn(|| events.next(Instant::now()).unwrap()).collect();
        let (last, exists) = seen.split_last().unwrap();
        assert_eq!(*last, Event::SnapshotDone);
        assert_eq!(exists.len(), 2 * objects, "{exists:#?}");
        assert!(exists.iter().all(|event| matches!(event, Event::Exists(_))));
        let primary = |event: &Event| matches!(event, Event::Exists(Object::Resource(resource)) if resource.role == Role::Primary);
        assert!(exists.iter().any(primary));
    }
}

/// Every byte of every captured message, set to its worst: the stream tells of an error or goes on.
#[test]
fn damaged_notifications_never_break_the_stream() {
    for capture in [V84, V9] {
        let messages = pcap::generic_netlink(capture).unwrap().into_iter().flat_map(wire::messages).map(Result::unwrap);
        for message in messages.filter(|message| !is_request(message) && message.port == 0) {
            let (kernel, _) = FakeKernel::new(move |request| match request.kind {
                crate::GENL_ID_CTRL => vec![fake::family(request, message.kind, 1)],
                _ => damaged(&message),
            });
            let mut events = Events::over(kernel).unwrap();
            let mut told = 0;
            while !matches!(events.next(Instant::now()), Ok(None)) {
                told += 1;
            }
            assert!(told < 2000, "{told}");
        }
    }
}

fn damaged(message: &Message) -> Vec<Reply> {
    let bytes = message.emit();
    let worst = |(at, byte): (usize, u8)| {
        let mut bytes = bytes.clone();
        bytes[at] = byte;
        Reply::Datagram(bytes)
    };
    (16..bytes.len()).flat_map(|at| [(at, 0xff), (at, 0)]).map(worst).collect()
}
