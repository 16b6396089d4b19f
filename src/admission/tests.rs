use std::os::unix::net::UnixStream;
use std::thread;

use super::*;
use crate::ids::DomId;

fn volume(volume: u16) -> VolumeId {
    VolumeId { resource: "r0".into(), volume }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

fn asker(volume: VolumeId, domain: &str) -> Asker {
    Asker { volume, domid: DomId(3), domain: domain.into() }
}

fn open(dir: &Path, side: Side, name: &str, volumes: &[VolumeId]) -> Result<Record, Error> {
    Record::open(dir, Uuid::new_v4(), side, name, volumes)
}

#[test]
fn a_record_is_seen_while_it_is_open_and_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    assert!(lookup(dir.path(), &volume(0)).unwrap().is_none());
    let record = open(dir.path(), Side::Outgoing, "vm", &[volume(0)]).unwrap();
    assert_eq!(lookup(dir.path(), &volume(0)).unwrap().unwrap().entry(), record.entry());
    assert!(lookup(dir.path(), &volume(1)).unwrap().is_none());
    drop(record);
    assert!(lookup(dir.path(), &volume(0)).unwrap().is_none());
}

#[test]
fn two_migrations_share_neither_volume_nor_name() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(dir.path(), Side::Outgoing, "vm", &[volume(0)]).unwrap();
    let same_volume = open(dir.path(), Side::Incoming, "other", &[volume(1), volume(0)]);
    assert!(matches!(same_volume, Err(Error::VolumeTaken { volume, .. }) if volume.volume == 0));
    let same_name = open(dir.path(), Side::Incoming, "vm", &[volume(1)]);
    assert!(matches!(same_name, Err(Error::NameTaken { .. })));
    let _second = open(dir.path(), Side::Incoming, "other", &[volume(1)]).unwrap();
    assert_eq!(open_migrations(dir.path()).unwrap().len(), 2);
}

#[test]
fn a_record_that_nobody_holds_counts_for_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let record = open(dir.path(), Side::Incoming, "vm", &[volume(0)]).unwrap();
    let path = record_path(dir.path(), record.entry.id);
    let text = fs::read(&path).unwrap();
    drop(record);
    fs::write(&path, text).unwrap();
    assert!(lookup(dir.path(), &volume(0)).unwrap().is_none());
    let again = open(dir.path(), Side::Incoming, "vm", &[volume(0)]).unwrap();
    assert!(!path.exists());
    assert_eq!(again.entry().name, "vm");
}

#[test]
fn a_record_that_says_what_is_left_to_do_stays_until_that_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let mut record = Record::act(dir.path(), Act::Restore, "vm").unwrap();
    let (id, path) = (record.entry().id, record.path.clone());
    record.charge(Charge::making(Uuid::from_u128(1))).unwrap();
    record.charge(Charge { domid: Some(DomId(3)), ..Charge::making(Uuid::from_u128(1)) }).unwrap();
    assert!(abandoned(dir.path()).unwrap().is_empty() && take_over(dir.path(), id).unwrap().is_none(), "it lives");
    kill(record);
    remove_stale_records(dir.path()).unwrap();
    assert_eq!(abandoned(dir.path()).unwrap().len(), 1);

    // Whoever has the domain in hand meanwhile goes on.
    let command = Record::act(dir.path(), Act::Command, "vm").unwrap();
    assert!(matches!(take_over(dir.path(), id), Err(Error::NameTaken { .. })));
    drop(command);
    let (settling, charge) = take_over(dir.path(), id).unwrap().unwrap();
    assert_eq!((charge.domid, settling.entry().act), (Some(DomId(3)), Some(Act::Settle)));
    assert!(take_over(dir.path(), id).unwrap().is_none(), "two of them");
    let taken = Record::act(dir.path(), Act::Command, "vm").unwrap_err();
    assert!(taken.to_string().contains("a process that was killed"), "{taken}");
    drop(settling);
    let (settling, _) = take_over(dir.path(), id).unwrap().unwrap();
    settling.close();
    assert!(!path.exists());

    // Of an earlier boot, nothing is left.
    let mut record = Record::act(dir.path(), Act::Create, "vm").unwrap();
    record.charge(Charge { boot: Uuid::nil(), ..Charge::making(Uuid::from_u128(1)) }).unwrap();
    kill(record);
    assert!(abandoned(dir.path()).unwrap().is_empty());
    remove_stale_records(dir.path()).unwrap();
    assert_eq!(record_paths(dir.path()).unwrap(), Vec::<PathBuf>::new());
}

/// As if its process had been killed: the lock goes, the record stays.
fn kill(mut record: Record) {
    record.stays = true;
}

#[test]
fn who_makes_a_domain_waits_for_the_end_of_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let ending = Record::act(dir.path(), Act::End, "vm").unwrap();
    assert!(matches!(Record::act(dir.path(), Act::Command, "vm"), Err(Error::NameTaken { .. })));
    let ended = thread::spawn(move || {
        thread::sleep(Duration::from_millis(50));
        drop(ending);
    });
    let record = Record::act(dir.path(), Act::Create, "vm").unwrap();
    ended.join().unwrap();
    assert!(matches!(Record::act(dir.path(), Act::Restore, "vm"), Err(Error::NameTaken { .. })));
    drop(record);
}

#[test]
fn a_live_record_that_cannot_be_read_is_no_permission() {
    let dir = tempfile::tempdir().unwrap();
    let path = record_path(dir.path(), Uuid::new_v4());
    fs::write(&path, "{").unwrap();
    let _lock = lock_file(&path, soon()).unwrap().unwrap();
    assert!(matches!(lookup(dir.path(), &volume(0)), Err(Error::Malformed { .. })));
}

#[test]
fn a_question_is_answered() {
    for handover in [Handover::Single, Handover::Dual] {
        let dir = tempfile::tempdir().unwrap();
        let mut record = open(dir.path(), Side::Incoming, "vm", &[volume(0)]).unwrap();
        let ticket = lookup(dir.path(), &volume(0)).unwrap().unwrap();
        let asking = thread::spawn(move || ticket.ask(&asker(volume(0), "vm--incoming"), soon()));
        let request = record.next_request(soon()).unwrap().unwrap();
        assert_eq!(request.asker(), &asker(volume(0), "vm--incoming"));
        request.grant(handover);
        assert_eq!(asking.join().unwrap().unwrap(), handover);
    }
}

#[test]
fn a_refusal_carries_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let mut record = open(dir.path(), Side::Incoming, "vm", &[volume(0)]).unwrap();
    let ticket = lookup(dir.path(), &volume(0)).unwrap().unwrap();
    let asking = thread::spawn(move || ticket.ask(&asker(volume(0), "vm--incoming"), soon()));
    record.next_request(soon()).unwrap().unwrap().refuse("the source keeps its volumes");
    let refusal = asking.join().unwrap().unwrap_err();
    assert!(refusal.to_string().contains("the source keeps its volumes"));
}

#[test]
fn another_domain_and_another_volume_are_refused_without_asking() {
    let dir = tempfile::tempdir().unwrap();
    let mut record = open(dir.path(), Side::Incoming, "vm", &[volume(0)]).unwrap();
    let ticket = lookup(dir.path(), &volume(0)).unwrap().unwrap();
    let asking = thread::spawn(move || {
        let other_domain = ticket.ask(&asker(volume(0), "vm"), soon()).unwrap_err();
        let other_volume = ticket.ask(&asker(volume(9), "vm--incoming"), soon()).unwrap_err();
        (other_domain.to_string(), other_volume.to_string())
    });
    let deadline = Instant::now() + Duration::from_millis(300);
    assert!(record.next_request(deadline).unwrap().is_none());
    let (other_domain, other_volume) = asking.join().unwrap();
    assert!(other_domain.contains("kept for vm--incoming"), "{other_domain}");
    assert!(other_volume.contains("not among the disks"), "{other_volume}");
}

#[test]
fn an_outgoing_migration_refuses_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let _record = open(dir.path(), Side::Outgoing, "vm", &[volume(0)]).unwrap();
    let ticket = lookup(dir.path(), &volume(0)).unwrap().unwrap();
    assert!(matches!(ticket.ask(&asker(volume(0), "vm"), soon()), Err(Refusal::Leaving { .. })));
}

#[test]
fn no_answer_is_a_refusal() {
    let dir = tempfile::tempdir().unwrap();
    let mut record = open(dir.path(), Side::Incoming, "vm", &[volume(0)]).unwrap();
    let ticket = lookup(dir.path(), &volume(0)).unwrap().unwrap();
    let late = ticket.ask(&asker(volume(0), "vm--incoming"), Instant::now() + Duration::from_millis(50));
    assert!(matches!(late, Err(Refusal::NoAnswer(_))));
    let asking = thread::spawn(move || ticket.ask(&asker(volume(0), "vm--incoming"), soon()));
    drop(record.next_request(soon()).unwrap()); // the one that gave up
    drop(record.next_request(soon()).unwrap());
    assert!(matches!(asking.join().unwrap(), Err(Refusal::NoAnswer(_))));
}

#[test]
fn a_flood_is_dropped_and_the_next_question_heard() {
    let dir = tempfile::tempdir().unwrap();
    let mut record = open(dir.path(), Side::Incoming, "vm", &[volume(0)]).unwrap();
    let socket = socket_path(dir.path(), record.entry.id);
    let flooding = thread::spawn(move || {
        let mut stream = UnixStream::connect(socket).unwrap();
        io::Write::write_all(&mut stream, &[b'x'; 64 * 1024]).is_err()
    });
    let ticket = lookup(dir.path(), &volume(0)).unwrap().unwrap();
    let deadline = Instant::now() + Duration::from_millis(200);
    assert!(record.next_request(deadline).unwrap().is_none());
    let asking = thread::spawn(move || ticket.ask(&asker(volume(0), "vm--incoming"), soon()));
    record.next_request(soon()).unwrap().unwrap().grant(Handover::Single);
    assert!(asking.join().unwrap().is_ok());
    flooding.join().unwrap();
}

#[test]
fn a_held_lock_is_waited_for_and_no_longer_than_said() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("resource-r0.lock");
    let held = lock_file(&path, soon()).unwrap().unwrap();
    assert!(lock_file(&path, Instant::now() + Duration::from_millis(20)).unwrap().is_none());
    drop(held);
    assert!(lock_file(&path, soon()).unwrap().is_some());
}
