//! Tests of requests against a kernel with the real one's habits: each of them has broken some client.

use std::time::Duration;

use nix::{errno::Errno, libc};

use crate::{
    Address, CfgContext, CfgReply, Change, Command, ConnectionStatus, Contents, DeviceConf, Dialect, DiskConf, Drbd,
    Error, NO_MINOR, NetConf, Packet, Peer, PeerVolume, Refusal, ResizeParms, ResourceInfo, ResourceOpts, Role, Secret,
    StartVerifyParms, Target,
    fake::{self, FAMILY_ID, FakeKernel, Log, PORT, Reply},
    wire::{Attr, Message},
};

const BOTH: [Dialect; 2] = [Dialect::V84, Dialect::V9];

fn r0() -> Target {
    Target { resource: "r0".into(), minor: 5 }
}

fn peer() -> Peer {
    let address = |text: &str| Address::from(text.parse::<std::net::SocketAddr>().unwrap());
    let (my_addr, peer_addr) = (address("127.0.0.1:7701"), address("127.0.0.1:7702"));
    Peer { resource: "r0".into(), peer_node_id: Some(1), my_addr, peer_addr }
}

fn connection() -> ConnectionStatus {
    let Peer { peer_node_id, my_addr, peer_addr, .. } = peer();
    let context =
        CfgContext { peer_node_id, my_addr: Some(my_addr), peer_addr: Some(peer_addr), ..CfgContext::default() };
    ConnectionStatus::of(&Contents { context: Some(context), ..Contents::default() })
}

/// What is sent when `act` is done to a kernel that agrees to everything.
fn requests(dialect: Dialect, act: impl FnOnce(&mut Drbd)) -> Vec<Packet> {
    let (kernel, log) = FakeKernel::drbd(dialect, |request, _| vec![fake::answer(request, 101, &Contents::default())]);
    act(&mut Drbd::over(kernel).unwrap());
    log.lock().unwrap().packets()
}

/// Every command that there is.
fn everything(drbd: &mut Drbd) {
    let volume = PeerVolume { target: r0(), volume: 0, peer_node_id: Some(1) };
    let net = NetConf { shared_secret: Some(Secret::new("s")), two_primaries: Some(true), ..NetConf::default() };
    let disk = DiskConf::internal("/dev/vda");
    let results = [
        drbd.new_resource("r0", &ResourceOpts { node_id: Some(0), ..ResourceOpts::default() }),
        drbd.resource_options("r0", &ResourceOpts { on_no_data: Some(1), ..ResourceOpts::default() }),
        drbd.new_minor("r0", 0, 5, &DeviceConf::default()),
        drbd.attach(5, &disk),
        drbd.disk_options(5, &DiskConf { on_io_error: Some(1), ..DiskConf::default() }),
        drbd.resize(5, &ResizeParms { resize_size: Some(0), ..ResizeParms::default() }),
        drbd.new_current_uuid(5, true),
        drbd.net_options(&peer(), &net),
        drbd.connect(&peer(), &net, true),
        drbd.set_two_primaries("r0", &connection(), true),
        drbd.down("r0"),
        drbd.del_minor(5),
        drbd.del_resource("r0"),
    ];
    results.into_iter().for_each(Result::unwrap);
    let changes = [
        drbd.primary(&r0(), true),
        drbd.secondary(&r0()),
        drbd.detach(5, true),
        drbd.invalidate(5),
        drbd.outdate(5),
        drbd.suspend_io(5),
        drbd.resume_io(5),
        drbd.disconnect(&peer(), true),
        drbd.invalidate_peer(&volume),
        drbd.pause_sync(&volume),
        drbd.resume_sync(&volume),
        drbd.start_verify(&volume, &StartVerifyParms::default()),
    ];
    changes.into_iter().for_each(|change| assert_eq!(change.unwrap(), Change::Done));
    drbd.timeout_type(&volume).unwrap();
    if drbd.dialect() == Dialect::V9 {
        let conf = crate::PeerDeviceConf::default();
        drbd.new_peer(&peer(), &net).unwrap();
        drbd.new_path(&peer()).unwrap();
        drbd.del_path(&peer()).unwrap();
        drbd.del_peer(&peer()).unwrap();
        drbd.forget_peer(&peer()).unwrap();
        drbd.peer_device_options(&volume, &conf).unwrap();
        drbd.rename_resource("r0", "r1").unwrap();
    }
}

#[test]
fn trap_1_and_2_every_nest_is_marked_and_bit_14_is_never_set() {
    for dialect in BOTH {
        for packet in requests(dialect, everything) {
            assert_eq!(packet.reserved, 0);
            for nest in &packet.attrs {
                assert_eq!(nest.kind & 0xc000, 0x8000, "{packet:?}");
                let inside = Attr::list(&nest.value).unwrap();
                assert!(inside.iter().all(|attr| attr.kind & 0xc000 == 0), "{packet:?}");
            }
        }
    }
}

#[test]
fn trap_2_and_3_answers_are_read_whatever_their_flag_bits() {
    let marks: [(u16, u16); 3] = [(0, 0), (0x8000, 0x4000), (0x4000, 0x4000)];
    for (outer, inner) in marks {
        let mut value = Vec::new();
        Attr { kind: inner | 2, value: b"r0\0".to_vec() }.emit(&mut value);
        Attr { kind: 0, value: vec![] }.emit(&mut value); // padding
        Attr { kind: inner | 1, value: 7u32.to_ne_bytes().to_vec() }.emit(&mut value);
        let attrs = vec![Attr { kind: outer | 2, value }];
        let packet = Packet { command: Command::GET_DEVICES, version: 1, reserved: 0, minor: 0, code: 101, attrs };
        let context = Packet::parse(&packet.emit()).unwrap().contents(Dialect::V84).unwrap().context.unwrap();
        assert_eq!((context.resource_name.as_deref(), context.volume), (Some("r0"), Some(7)));
        assert_eq!(context.other, []);
    }
}

#[test]
fn trap_4_roles_go_by_minor_on_8_4_and_by_resource_on_9() {
    let promote = |drbd: &mut Drbd| assert_eq!(drbd.primary(&r0(), false).unwrap(), Change::Done);
    let [old] = &requests(Dialect::V84, promote)[..] else { panic!() };
    assert_eq!((old.command, old.version, old.minor, &old.attrs[..]), (Command::PRIMARY, 1, 5, &[][..]));

    let [new] = &requests(Dialect::V9, promote)[..] else { panic!() };
    let contents = new.contents(Dialect::V9).unwrap();
    assert_eq!((new.command, new.version, new.minor), (Command::PRIMARY, 2, NO_MINOR));
    let context = CfgContext { resource_name: Some("r0".into()), ..CfgContext::default() };
    assert_eq!(contents.context, Some(context));
    assert_eq!(contents.set_role_parms, Some(crate::SetRoleParms::default()));
}

#[test]
fn trap_5_options_of_a_connection_go_by_addresses_on_8_4_and_by_node_id_on_9() {
    let allow = |drbd: &mut Drbd| drbd.set_two_primaries("r0", &connection(), true).unwrap();
    let [old] = &requests(Dialect::V84, allow)[..] else { panic!() };
    assert_eq!(old.minor, NO_MINOR);
    let Peer { my_addr, peer_addr, .. } = peer();
    let context = CfgContext { my_addr: Some(my_addr), peer_addr: Some(peer_addr), ..CfgContext::default() };
    assert_eq!(old.contents(Dialect::V84).unwrap().context, Some(context));

    let [new] = &requests(Dialect::V9, allow)[..] else { panic!() };
    let context = CfgContext { resource_name: Some("r0".into()), peer_node_id: Some(1), ..CfgContext::default() };
    assert_eq!(new.contents(Dialect::V9).unwrap().context, Some(context));
}

#[test]
fn trap_6_one_option_is_changed_and_nothing_is_reset() {
    for dialect in BOTH {
        for on in [true, false] {
            let [packet] = &requests(dialect, |drbd| drbd.set_two_primaries("r0", &connection(), on).unwrap())[..]
            else {
                panic!()
            };
            assert_eq!(packet.code, 0, "no flags, SET_DEFAULTS least of all");
            let only = NetConf { two_primaries: Some(on), ..NetConf::default() };
            assert_eq!(packet.contents(dialect).unwrap().net_conf, Some(only));
        }
    }
}

#[test]
fn trap_7_success_has_two_spaces_and_everything_else_is_a_refusal() {
    let promoted = |code: i32| {
        let info = CfgReply { info_text: vec!["one".into(), "two\n".into()], ..CfgReply::default() };
        let contents = Contents { reply: Some(info), ..Contents::default() };
        let (kernel, _) =
            FakeKernel::drbd(Dialect::V84, move |request, _| vec![fake::answer(request, code, &contents)]);
        Drbd::over(kernel).unwrap().primary(&r0(), false)
    };
    for (code, change) in
        [(1, Change::Done), (2, Change::NothingToDo), (3, Change::Done), (4, Change::NothingToDo), (101, Change::Done)]
    {
        assert_eq!(promoted(code).unwrap(), change);
    }
    for (code, refusal) in [(-1, Refusal::TwoPrimaries), (0, Refusal::StateUnknownError), (127, Refusal::MinorInvalid)]
    {
        assert_eq!(promoted(code).unwrap_err().refusal(), Some(refusal));
    }
    assert_eq!(
        promoted(-18).unwrap_err().to_string(),
        "primary of r0 (minor 5) refused: in a transient state (-18): try again; one; two"
    );
}

#[test]
fn trap_8_a_dump_that_repeats_a_refusal_is_stopped_by_closing_the_socket() {
    let (kernel, log) = FakeKernel::drbd(Dialect::V84, |request, packet| match packet.command {
        Command::GET_RESOURCES => vec![fake::answer(request, 101, &of_resource("r0")), fake::done(request)],
        _ => {
            let Reply::Datagram(refused) = fake::answer(request, 158, &Contents::default()) else { panic!() };
            vec![Reply::Endless(refused)]
        }
    });
    let mut drbd = Drbd::over(kernel).unwrap();
    assert_eq!(drbd.resource("r0").unwrap(), None, "gone between two dumps");
    assert_eq!(log.lock().unwrap().reopened, 1);
    // A name that no dump has shown is not even asked for.
    assert_eq!(drbd.resource("nope").unwrap(), None);
    assert_eq!(log.lock().unwrap().packets().last().unwrap().command, Command::GET_RESOURCES);
}

fn of_resource(name: &str) -> Contents {
    let context = CfgContext { resource_name: Some(name.into()), ..CfgContext::default() };
    let info = ResourceInfo { role: Some(Role::Secondary), ..ResourceInfo::default() };
    Contents { context: Some(context), resource_info: Some(info), ..Contents::default() }
}

#[test]
fn a_dump_that_never_ends_is_given_up() {
    let (kernel, log) = FakeKernel::drbd(Dialect::V84, |request, _| {
        let Reply::Datagram(record) = fake::answer(request, 101, &of_resource("r0")) else { panic!() };
        vec![Reply::Endless(record)]
    });
    let error = Drbd::over(kernel).unwrap().status().unwrap_err();
    assert!(matches!(error, Error::Endless { records: crate::DUMP_RECORDS_MAX, .. }), "{error}");
    assert_eq!(log.lock().unwrap().reopened, 1);
}

#[test]
fn what_is_not_the_answer_is_passed_over() {
    let (kernel, _) = FakeKernel::drbd(Dialect::V84, |request, packet| {
        let other = Packet { code: -1, ..packet.clone() };
        let stale = Message { sequence: request.sequence - 1, ..request.clone() };
        let Reply::Datagram(answer) = fake::answer(request, 1, &Contents::default()) else { panic!() };
        let Reply::Datagram(late) = fake::answer(&stale, -1, &Contents::default()) else { panic!() };
        vec![
            fake::broadcast(request.sequence, &other), // the kernel's counter happens to be at our number
            Reply::Error(libc::EINTR),
            Reply::Datagram([late, answer].concat()), // two messages in one datagram
        ]
    });
    assert_eq!(Drbd::over(kernel).unwrap().primary(&r0(), false).unwrap(), Change::Done);
}

#[test]
fn without_an_answer_the_socket_is_thrown_away() {
    let error = of_silence(Vec::new);
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    let error = of_silence(|| vec![Reply::Error(libc::ENOBUFS)]);
    assert!(matches!(error, Error::AnswerLost { .. }), "{error}");
}

fn of_silence(replies: fn() -> Vec<Reply>) -> Error {
    let (kernel, log) = FakeKernel::drbd(Dialect::V9, move |_, _| replies());
    let mut drbd = Drbd::over(kernel).unwrap();
    drbd.set_timeout(Duration::from_millis(1));
    let error = drbd.secondary(&r0()).unwrap_err();
    assert_eq!(log.lock().unwrap().reopened, 1);
    error
}

#[test]
fn a_family_with_a_new_id_is_resolved_again_and_the_request_repeated_once() {
    let mut id = FAMILY_ID;
    let (kernel, log) = FakeKernel::new(move |request| match request.kind {
        crate::GENL_ID_CTRL => {
            id += 1;
            vec![fake::family(request, id, 1)]
        }
        27 => vec![fake::failure(request, libc::ENOENT)],
        _ => vec![fake::answer(request, 1, &Contents::default())],
    });
    assert_eq!(Drbd::over(kernel).unwrap().primary(&r0(), false).unwrap(), Change::Done);
    let kinds: Vec<u16> = log.lock().unwrap().sent.iter().map(|message| message.kind).collect();
    assert_eq!(kinds, [16, 27, 16, 28]);
}

#[test]
fn a_kernel_without_drbd_or_with_one_that_is_not_known_is_told_apart() {
    let (kernel, _) = FakeKernel::new(|request| vec![fake::failure(request, libc::ENOENT)]);
    assert!(matches!(Drbd::over(kernel), Err(Error::NotLoaded)));
    let (kernel, _) = FakeKernel::new(|request| vec![fake::family(request, FAMILY_ID, 3)]);
    assert!(matches!(Drbd::over(kernel), Err(Error::UnknownVersion { version: 3 })));
}

#[test]
fn errors_of_netlink_say_what_the_kernel_said() {
    let (kernel, _) = FakeKernel::drbd(Dialect::V84, |request, _| vec![fake::failure(request, libc::EPERM)]);
    let error = Drbd::over(kernel).unwrap().primary(&r0(), false).unwrap_err();
    assert!(matches!(error, Error::NotPermitted { command: Command::PRIMARY, .. }), "{error}");

    let (kernel, _) = FakeKernel::drbd(Dialect::V84, |request, _| vec![explained(request)]);
    let error = Drbd::over(kernel).unwrap().primary(&r0(), false).unwrap_err();
    assert!(matches!(error, Error::Kernel { errno: Errno::EINVAL, .. }));
    assert!(error.to_string().ends_with("(NLA_F_NESTED is missing)"), "{error}");
}

/// EINVAL with an extended acknowledgement, the request repeated whole.
fn explained(request: &Message) -> Reply {
    let mut payload = (-libc::EINVAL).to_ne_bytes().to_vec();
    payload.extend(request.emit());
    Attr { kind: 1, value: b"NLA_F_NESTED is missing\0".to_vec() }.emit(&mut payload);
    let message = Message { kind: 2, flags: 0x200, sequence: request.sequence, port: PORT, payload };
    Reply::Datagram(message.emit())
}

#[test]
fn names_that_the_kernel_would_cut_are_not_sent() {
    let (kernel, log) = FakeKernel::drbd(Dialect::V9, |_, _| vec![]);
    let mut drbd = Drbd::over(kernel).unwrap();
    for name in ["", "r0\0r1", &"x".repeat(128)] {
        assert!(matches!(drbd.down(name), Err(Error::BadName { .. })));
        let volume = Target { resource: name.into(), minor: 0 };
        assert!(matches!(drbd.primary(&volume, false), Err(Error::BadName { .. })));
    }
    let connection = drbd.disconnect(&Peer { resource: "r0\0".into(), ..peer() }, false);
    assert!(matches!(connection, Err(Error::BadName { .. })));
    assert_eq!(log.lock().unwrap().packets(), []);
}

#[test]
fn what_a_dialect_lacks_is_said_before_anything_is_sent() {
    let log = |dialect, act: &dyn Fn(&mut Drbd) -> Error, expected: &str| {
        let (kernel, log): (_, std::sync::Arc<std::sync::Mutex<Log>>) = FakeKernel::drbd(dialect, |_, _| vec![]);
        let error = act(&mut Drbd::over(kernel).unwrap());
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(log.lock().unwrap().packets(), []);
    };
    let forgotten = Peer { my_addr: Address::from_bytes([0; 16]), ..peer() };
    let unnamed = Peer { peer_node_id: None, ..peer() };
    log(Dialect::V84, &|drbd| drbd.new_path(&peer()).unwrap_err(), "does not exist in DRBD 8.4");
    log(Dialect::V84, &|drbd| drbd.disconnect(&forgotten, true).unwrap_err(), "needs both addresses");
    log(Dialect::V9, &|drbd| drbd.disconnect(&unnamed, true).unwrap_err(), "needs the peer's node id");
    log(Dialect::V9, &|drbd| drbd.minor_of_84(0).unwrap_err(), "does not exist in DRBD 9");
}

#[test]
fn a_dump_with_a_broken_record_is_not_left_half_read() {
    let (kernel, log) = FakeKernel::drbd(Dialect::V84, |request, _| {
        let Reply::Datagram(mut record) = fake::answer(request, 101, &of_resource("r0")) else { panic!() };
        record[28] = 3; // length of the first attribute, shorter than its header
        vec![Reply::Datagram(record), fake::done(request)]
    });
    let error = Drbd::over(kernel).unwrap().status().unwrap_err();
    assert!(matches!(error, Error::Decode { .. }), "{error}");
    assert_eq!(log.lock().unwrap().reopened, 1);
}
