//! Tests of the stream of events against a kernel with the real one's habits.

use std::time::{Duration, Instant};

use nix::libc;

use crate::{
    CfgContext, Command, Contents, Dialect, Error, Event, Events, GENL_ID_CTRL, HelperInfo, HelperPhase, NO_MINOR,
    NotificationHeader, Notified, Object, ObjectId, PENDING_MAX, Packet, ResourceInfo, Role,
    fake::{self, FAMILY_ID, FakeKernel, Reply},
    wire::Message,
};

const CONTINUES: u32 = 0x8000;

/// A notification about a resource.
fn resource(name: &str, what: u32, role: Role) -> Packet {
    let info = ResourceInfo { role: Some(role), ..ResourceInfo::default() };
    let contents = Contents { resource_info: Some(info), ..notification(name, what) };
    Packet { code: 101, ..Packet::request(Command::RESOURCE_STATE, NO_MINOR, &contents, Dialect::V84) }
}

fn notification(name: &str, what: u32) -> Contents {
    let context = CfgContext { resource_name: Some(name.into()), volume: Some(0), ..CfgContext::default() };
    let header = NotificationHeader { nh_type: Some(Notified(what)), ..NotificationHeader::default() };
    Contents { context: Some(context), notification: Some(header), ..Contents::default() }
}

fn snapshot_done() -> Packet {
    let header = NotificationHeader { nh_type: Some(Notified(0)), ..NotificationHeader::default() };
    let contents = Contents { notification: Some(header), ..Contents::default() };
    Packet { code: 101, ..Packet::request(Command::INITIAL_STATE_DONE, NO_MINOR, &contents, Dialect::V84) }
}

/// A kernel with one resource, r0, that then sends `more`.
fn with_r0(more: impl Fn() -> Vec<Reply> + Send + 'static) -> Events {
    let (kernel, _) = FakeKernel::drbd(Dialect::V84, move |request, _| {
        let mut replies = initial_state(request);
        replies.extend(more());
        replies
    });
    Events::over(kernel).unwrap()
}

fn initial_state(request: &Message) -> Vec<Reply> {
    vec![
        fake::initial(request, &resource("r0", 0, Role::Secondary)),
        fake::initial(request, &snapshot_done()),
        fake::done(request),
    ]
}

fn next(events: &mut Events) -> Option<Event> {
    events.next(Instant::now() + Duration::from_secs(5)).unwrap() // this kernel does not let anybody wait
}

fn is_role(event: Option<Event>, expected: Role) -> bool {
    matches!(event, Some(Event::Exists(Object::Resource(r)) | Event::Changed(Object::Resource(r))) if r.role == expected)
}

#[test]
fn trap_9_the_initial_state_has_neither_our_port_nor_the_multi_flag_and_changes_wait_for_its_end() {
    let (kernel, log) = FakeKernel::drbd(Dialect::V84, |request, packet| {
        assert_eq!((packet.command, packet.minor, request.flags), (Command::GET_INITIAL_STATE, NO_MINOR, 0x301));
        let mut replies = initial_state(request);
        replies.insert(0, fake::broadcast(99, &resource("r0", Notified::CHANGE, Role::Primary)));
        replies
    });
    let mut events = Events::over(kernel).unwrap();
    assert_eq!(log.lock().unwrap().joined, [16, 3]);
    assert!(is_role(next(&mut events), Role::Secondary));
    assert_eq!(next(&mut events), Some(Event::SnapshotDone));
    assert!(is_role(next(&mut events), Role::Primary));
    assert_eq!(next(&mut events), None);
}

#[test]
fn after_an_overrun_everything_is_told_anew_on_a_new_socket() {
    let mut times = 0;
    let (kernel, log) = FakeKernel::drbd(Dialect::V84, move |request, _| {
        times += 1;
        let mut replies = initial_state(request);
        if times == 1 {
            replies.push(Reply::Error(libc::EINTR));
            replies.push(Reply::Error(libc::ENOBUFS));
        }
        replies
    });
    let mut events = Events::over(kernel).unwrap();
    let seen: Vec<Event> = std::iter::from_fn(|| next(&mut events)).collect();
    let exists = &seen[0];
    assert_eq!(seen, [exists.clone(), Event::SnapshotDone, Event::Lost, exists.clone(), Event::SnapshotDone]);
    let log = log.lock().unwrap();
    assert_eq!((log.reopened, &log.joined[..]), (1, &[16, 3, 16, 3][..]));
}

#[test]
fn a_flood_before_the_initial_state_is_complete_is_bounded() {
    let mut times = 0;
    let (kernel, _) = FakeKernel::drbd(Dialect::V84, move |request, _| {
        times += 1;
        let flood = || fake::broadcast(1, &resource("r0", Notified::CHANGE, Role::Primary));
        match times {
            1 => std::iter::repeat_with(flood).take(PENDING_MAX + 1).collect(),
            _ => initial_state(request),
        }
    });
    let mut events = Events::over(kernel).unwrap();
    assert_eq!(next(&mut events), Some(Event::Lost));
    assert!(is_role(next(&mut events), Role::Secondary));
}

#[test]
fn an_initial_state_that_ends_early_is_asked_for_again() {
    let mut times = 0;
    let (kernel, _) = FakeKernel::drbd(Dialect::V84, move |request, _| {
        times += 1;
        if times == 1 { vec![fake::done(request)] } else { initial_state(request) }
    });
    let mut events = Events::over(kernel).unwrap();
    assert_eq!(next(&mut events), Some(Event::Lost));
    assert!(is_role(next(&mut events), Role::Secondary));
}

#[test]
fn an_unloaded_module_ends_the_stream() {
    let mut events = with_r0(|| {
        let payload = fake::family_payload(2, FAMILY_ID, 1);
        vec![Reply::Datagram(Message { kind: GENL_ID_CTRL, flags: 0, sequence: 0, port: 0, payload }.emit())]
    });
    assert!(next(&mut events).is_some());
    assert_eq!(next(&mut events), Some(Event::SnapshotDone));
    assert!(matches!(events.next(Instant::now()), Err(Error::NotLoaded)));
}

#[test]
fn the_end_of_an_object_and_helpers_are_told() {
    let helper = |what, status| {
        let info = HelperInfo { name: Some("fence-peer".into()), status: Some(status), ..HelperInfo::default() };
        let contents = Contents { helper: Some(info), ..notification("r0", what) };
        fake::broadcast(8, &Packet { code: 101, ..Packet::request(Command::HELPER, NO_MINOR, &contents, Dialect::V84) })
    };
    let mut events = with_r0(move || {
        vec![
            helper(Notified::CALL, 0),
            helper(Notified::RESPONSE, 7 << 8),
            fake::broadcast(9, &resource("r0", Notified::CHANGE | CONTINUES, Role::Primary)),
            fake::broadcast(10, &resource("r0", Notified::DESTROY, Role::Unknown)),
        ]
    });
    assert!(next(&mut events).is_some());
    assert_eq!(next(&mut events), Some(Event::SnapshotDone));
    for expected in [HelperPhase::Call, HelperPhase::Response(7)] {
        let told = next(&mut events);
        assert!(matches!(&told, Some(Event::Helper { name, phase, .. }) if name == "fence-peer" && *phase == expected));
    }
    assert!(is_role(next(&mut events), Role::Primary));
    assert!(events.more_follow());
    assert_eq!(next(&mut events), Some(Event::Destroyed(ObjectId::Resource { name: "r0".into() })));
    assert!(!events.more_follow());
}

#[test]
fn old_notifications_of_8_4_are_passed_over_and_nameless_ones_are_errors() {
    let mut events = with_r0(|| {
        let old = Packet { command: Command::EVENT, ..resource("r0", Notified::CHANGE, Role::Primary) };
        let nameless = Packet { command: Command::RESOURCE_STATE, ..snapshot_done() };
        vec![fake::broadcast(1, &old), fake::broadcast(2, &nameless)]
    });
    assert!(next(&mut events).is_some());
    assert_eq!(next(&mut events), Some(Event::SnapshotDone));
    assert!(matches!(events.next(Instant::now()), Err(Error::Decode { .. })));
}
