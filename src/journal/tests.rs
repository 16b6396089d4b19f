use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::admission::Side;
use crate::ids::{DomId, Minor, VolumeId};
use crate::protocol::Handover;
use crate::replication::Counters;

/// A finished journal of a source, as this format has it. A change that does not read it is a new [`FORMAT`].
const FINISHED: &str = include_str!("samples/finished.journal");

fn volume(volume: u16) -> VolumeId {
    VolumeId { resource: "r0".into(), volume }
}

fn head(side: Side) -> Head {
    let id = Uuid::new_v4();
    let link = Some(json!({ "local": "10.99.0.1:7789", "peer": "10.99.0.2:7789" }));
    Head {
        format: FORMAT,
        id,
        side,
        name: "vm0".into(),
        uuid: Uuid::from_u128(0xd0),
        domid: Some(DomId(7)),
        peer: Peer { host: "node2".into(), port: 8002, node: String::new() },
        handover: Handover::Single,
        volumes: vec![JournaledVolume { id: volume(0), minor: Minor(10), two_primaries: false, link }],
        boot: this_boot(),
        pid: std::process::id(),
        program: "bascule 0.1.0".into(),
    }
}

fn released() -> Record {
    let counters = Counters { written: 8192, sent: 8000, received: 16 };
    Record::Released { handover: Handover::Single, samples: vec![Sample { volume: volume(0), counters }] }
}

fn note(text: &str) -> Record {
    Record::Note { text: text.into() }
}

fn done(outcome: Done) -> Record {
    Record::Done { outcome, reason: "as it should".into(), receipt: Some(json!({ "downtime_ms": 123.456 })) }
}

/// What a source journals that moves its domain away.
fn moved() -> [Record; 4] {
    [released(), Record::Go, note("a line\nbreak, \"quotes\" and ü"), done(Done::Moved)]
}

fn create(dir: &TempDir, side: Side) -> Journal {
    Journal::create(dir.path(), head(side)).unwrap()
}

fn create_with(dir: &TempDir, side: Side, records: impl IntoIterator<Item = Record>) -> Journal {
    let mut journal = create(dir, side);
    records.into_iter().for_each(|record| journal.append(record).unwrap());
    journal
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap().lines().map(|line| format!("{line}\n")).collect()
}

#[test]
fn what_was_appended_is_read() {
    let dir = TempDir::new().unwrap();
    let journal = create_with(&dir, Side::Outgoing, moved());
    let story = read(dir.path(), journal.story().head.id).unwrap().unwrap();
    assert_eq!(&story, journal.story());
    assert_eq!(story.stage(), Stage::Done(Done::Moved));
    assert_eq!(story.samples()[0].counters.sent, 8000);
    assert_eq!(story.receipt().unwrap()["downtime_ms"], 123.456);
    assert!(!story.rebooted());
    assert_eq!(read(dir.path(), Uuid::new_v4()).unwrap(), None);
}

#[test]
fn a_destination_keeps_what_it_promised() {
    let dir = TempDir::new().unwrap();
    let domid = DomId(9);
    let allowed = Record::Allowed { resource: "r0".into() };
    let records = [
        Record::Copy { domid },
        allowed,
        Record::Ready { domid, samples: Vec::new() },
        Record::Owned,
        Record::Started,
        done(Done::Moved),
    ];
    let journal = create_with(&dir, Side::Incoming, records);
    let story = journal.story();
    assert_eq!((story.copy(), story.allowed().collect::<Vec<_>>()), (Some(domid), vec!["r0"]));
    assert_eq!(read(dir.path(), story.head.id).unwrap().as_ref(), Some(story));
}

#[test]
fn only_root_may_look() {
    let dir = TempDir::new().unwrap();
    let state = dir.path().join("lib/bascule");
    let journal = Journal::create(&state, head(Side::Outgoing)).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&state), mode(&journal.path)), (0o700, 0o600));
}

#[test]
fn the_format_does_not_change_unnoticed() {
    let path = Path::new("6f1c5b1e-3d0a-4c57-9b5e-2f6a1d0c9e77.journal");
    let story = scan::scan(path, FINISHED.as_bytes()).unwrap().undamaged().unwrap();
    let mut text = line::write_head(story.opened_at, &story.head).unwrap();
    story.entries.iter().for_each(|entry| text += &line::write_entry(entry).unwrap());
    assert_eq!(text, FINISHED);

    let keywords: Vec<_> = story.entries.iter().map(|entry| entry.record.keyword()).collect();
    assert_eq!(keywords, ["released", "go", "note", "done"]);
    assert_eq!((story.stage(), story.torn), (Stage::Done(Done::Moved), false));
    assert_eq!(story.opened_at.to_string(), "2026-11-23T00:45:12.345678Z");
    let expected = Head { id: story.head.id, boot: Uuid::from_u128(0xb0), pid: 1234, ..head(Side::Outgoing) };
    assert_eq!(story.head, expected);
    assert_eq!(story.entries[0].record, released());
    assert!(story.rebooted());
}

#[test]
fn every_record_keeps_its_keyword() {
    let reason = || String::from("why");
    let domid = DomId(9);
    let others = [
        Record::Returned { reason: reason(), peer_aborted: true },
        Record::Copy { domid },
        Record::Allowed { resource: "r0".into() },
        Record::Ready { domid, samples: Vec::new() },
        Record::Owned,
        Record::Aborted { reason: reason() },
    ];
    for record in moved().into_iter().chain(others) {
        assert_eq!(serde_json::to_value(&record).unwrap()["record"], record.keyword());
        let entry = Entry { at: line::now(), record };
        let text = line::write_entry(&entry).unwrap();
        assert_eq!(text.matches('\n').count(), 1);
        assert_eq!(line::Line::read(text.as_bytes()).unwrap().entry().unwrap(), entry);
    }
}

#[test]
fn a_last_record_that_is_torn_anywhere_counts_for_nothing() {
    let dir = TempDir::new().unwrap();
    let journal = create_with(&dir, Side::Outgoing, [released(), Record::Go]);
    let (id, path) = (journal.story().head.id, journal.path.clone());
    drop(journal);
    let whole = fs::read(&path).unwrap();
    let before: usize = lines(&path)[..2].iter().map(String::len).sum();
    for len in before + 1..whole.len() {
        fs::write(&path, &whole[..len]).unwrap();
        let story = read(dir.path(), id).unwrap().unwrap();
        assert_eq!((story.stage(), story.torn), (Stage::Released, true), "{len} bytes");
    }
    for byte in before..whole.len() - 1 {
        let mut bytes = whole.clone();
        bytes[byte] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let story = read(dir.path(), id).unwrap().unwrap();
        assert_eq!((story.stage(), story.torn), (Stage::Released, true), "byte {byte}");
    }
}

#[test]
fn a_torn_record_is_cut_off_before_the_next() {
    let dir = TempDir::new().unwrap();
    let journal = create_with(&dir, Side::Outgoing, [released()]);
    let (id, path) = (journal.story().head.id, journal.path.clone());
    drop(journal);
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    // Longer than what will be written over it.
    file.write_all("2026-11-23T00:45:12.000000Z go ".repeat(9).as_bytes()).unwrap();
    let mut journal = Journal::adopt(dir.path(), id).unwrap().unwrap();
    assert!(journal.story().torn);
    journal.append(Record::Go).unwrap();
    let story = read(dir.path(), id).unwrap().unwrap();
    assert_eq!(&story, journal.story());
    assert_eq!((story.stage(), story.torn), (Stage::Go, false));
}

#[test]
fn damage_before_the_last_record_is_named_with_its_line() {
    let dir = TempDir::new().unwrap();
    let journal = create_with(&dir, Side::Outgoing, [released(), note("seen")]);
    let (id, path) = (journal.story().head.id, journal.path.clone());
    drop(journal);
    for number in 1..=2 {
        let mut lines = lines(&path);
        lines[number - 1] = lines[number - 1].replacen('0', "1", 1);
        fs::write(&path, lines.concat()).unwrap();
        let line_of = |error| matches!(error, Error::Damaged { line, .. } if line == number);
        assert!(line_of(read(dir.path(), id).unwrap_err()));
        assert!(line_of(Journal::adopt(dir.path(), id).unwrap_err()));
        lines[number - 1] = lines[number - 1].replacen('1', "0", 1);
        fs::write(&path, lines.concat()).unwrap();
    }
}

#[test]
fn lines_that_are_missing_or_exchanged_are_damage() {
    let dir = TempDir::new().unwrap();
    let journal = create_with(&dir, Side::Outgoing, [released(), Record::Go]);
    let (id, path) = (journal.story().head.id, journal.path.clone());
    let [head, released, go] = &lines(&path)[..] else { panic!("three lines") };
    for text in [[head, go].map(String::as_str).concat(), [head, go, released].map(String::as_str).concat()] {
        fs::write(&path, text).unwrap();
        assert!(matches!(read(dir.path(), id), Err(Error::Damaged { line: 2, .. })));
    }
}

#[test]
fn a_record_that_is_whole_and_unknown_is_damage() {
    let dir = TempDir::new().unwrap();
    let journal = create(&dir, Side::Outgoing);
    let (id, path) = (journal.story().head.id, journal.path.clone());
    for text in ["2026-11-23T00:45:12.345678Z jump {}", "2026-11-23T00:45:12.345678Z go", "now go {}"] {
        let line = format!("{text} {:08x}\n", crc32fast::hash(text.as_bytes()));
        fs::write(&path, lines(&path)[0].clone() + &line).unwrap();
        assert!(matches!(read(dir.path(), id), Err(Error::Damaged { line: 2, .. })), "{text}");
    }
}

#[test]
fn another_migrations_journal_is_damage() {
    let dir = TempDir::new().unwrap();
    let journal = create(&dir, Side::Outgoing);
    let id = Uuid::new_v4();
    fs::copy(&journal.path, shelf::open_path(dir.path(), id)).unwrap();
    assert!(matches!(read(dir.path(), id), Err(Error::Damaged { line: 1, .. })));
}

#[test]
fn a_format_from_the_future_is_refused_by_name() {
    let dir = TempDir::new().unwrap();
    let later = Head { format: FORMAT + 1, ..head(Side::Outgoing) };
    let text = line::write_head(line::now(), &later).unwrap();
    fs::write(shelf::open_path(dir.path(), later.id), text).unwrap();
    assert!(matches!(read(dir.path(), later.id), Err(Error::Future { format: 2, .. })));
    assert!(matches!(Journal::adopt(dir.path(), later.id), Err(Error::Future { .. })));
    assert!(matches!(open_for(dir.path(), &volume(5)), Err(Error::Future { .. })));
}

#[test]
fn one_process_at_a_time_works_on_a_journal() {
    let dir = TempDir::new().unwrap();
    let journal = create(&dir, Side::Outgoing);
    let id = journal.story().head.id;
    assert!(Journal::adopt(dir.path(), id).unwrap().is_none());
    let listed = &list(dir.path()).unwrap()[0];
    assert!(listed.held && listed.holder.is_none_or(|pid| pid == std::process::id()), "{listed:?}");
    drop(journal);
    assert!(!list(dir.path()).unwrap()[0].held);
    let adopted = Journal::adopt(dir.path(), id).unwrap().unwrap();
    assert!(Journal::adopt(dir.path(), id).unwrap().is_none());
    assert_eq!(adopted.story().stage(), Stage::Open);
    assert!(matches!(Journal::adopt(dir.path(), Uuid::new_v4()), Err(Error::Missing { .. })));
}

#[test]
fn a_migration_has_one_journal() {
    let dir = TempDir::new().unwrap();
    let mut journal = create(&dir, Side::Outgoing);
    let head = journal.story().head.clone();
    assert!(matches!(Journal::create(dir.path(), head.clone()), Err(Error::Exists { .. })));
    journal.append(done(Done::Failed)).unwrap();
    drop(journal);
    assert!(matches!(Journal::create(dir.path(), head), Err(Error::Exists { .. })));
}

#[test]
fn a_volume_finds_its_unfinished_journal() {
    let dir = TempDir::new().unwrap();
    let found = |number| open_for(dir.path(), &volume(number)).unwrap().map(|story| story.head.id);
    assert_eq!(found(0), None);
    let mut journal = create(&dir, Side::Outgoing);
    let id = journal.story().head.id;
    assert_eq!((found(0), found(1)), (Some(id), None));
    journal.append(done(Done::Failed)).unwrap();
    assert_eq!(found(0), None);
    // Finished, and the process ended before it was set aside.
    fs::rename(&journal.path, shelf::open_path(dir.path(), id)).unwrap();
    assert_eq!(found(0), None);
}

#[test]
fn what_cannot_be_read_is_no_permission() {
    let dir = TempDir::new().unwrap();
    let journal = create_with(&dir, Side::Outgoing, [released(), Record::Go]);
    let path = journal.path.clone();
    let whole = lines(&path);
    fs::write(&path, [&whole[0], "?\n", &whole[2]].map(|line: &str| line).concat()).unwrap();
    assert_eq!(open_for(dir.path(), &volume(0)).unwrap().unwrap().head, journal.story().head);
    assert!(open_for(dir.path(), &volume(1)).unwrap().is_none());
    fs::write(&path, "").unwrap();
    assert!(matches!(open_for(dir.path(), &volume(1)), Err(Error::Damaged { line: 1, .. })));
}

#[test]
fn the_list_is_in_the_order_of_opening_and_keeps_what_cannot_be_read() {
    let dir = TempDir::new().unwrap();
    assert!(list(&dir.path().join("none")).unwrap().is_empty());
    let journals: Vec<_> = (0..3).map(|_| create(&dir, Side::Incoming)).collect();
    let ids: Vec<_> = journals.iter().map(|journal| journal.story().head.id).collect();
    fs::write(&journals[2].path, "?").unwrap();
    fs::write(dir.path().join("notes.journal"), "not ours").unwrap();
    let listed = list(dir.path()).unwrap();
    assert_eq!(listed.iter().map(|listed| listed.id).collect::<Vec<_>>(), ids);
    assert!(matches!(listed[2].story, Err(Error::Damaged { line: 1, .. })));
}

#[test]
fn the_oldest_finished_journals_go_and_no_others() {
    let dir = TempDir::new().unwrap();
    let finished = || create_with(&dir, Side::Outgoing, [done(Done::Failed)]).story().head.id;
    let held = create_with(&dir, Side::Outgoing, [done(Done::Failed)]);
    let _oldest = finished();
    let open = create(&dir, Side::Outgoing).story().head.id;
    let damaged = create_with(&dir, Side::Outgoing, [released(), Record::Go]);
    fs::write(&damaged.path, lines(&damaged.path)[0].clone() + "?\n?\n").unwrap();
    let kept = [finished(), finished()];
    fs::write(dir.path().join("left.new"), "by a crash").unwrap();

    prune(dir.path(), 2).unwrap();
    let left: Vec<_> = list(dir.path()).unwrap().iter().map(|listed| listed.id).collect();
    assert_eq!(left, [held.story().head.id, open, damaged.story().head.id, kept[0], kept[1]]);
    assert!(!dir.path().join("left.new").exists());
    prune(&dir.path().join("none"), 2).unwrap();
}

#[test]
fn nothing_is_appended_after_a_failure() {
    let dir = TempDir::new().unwrap();
    let mut journal = create_with(&dir, Side::Outgoing, [released()]);
    let before = journal.story().clone();
    journal.file = file_that_cannot_grow(&fs::read(&journal.path).unwrap());
    assert!(matches!(journal.append(Record::Go), Err(Error::NotAppended { record: "go", .. })));
    assert!(matches!(journal.append(Record::Go), Err(Error::Poisoned { .. })));
    assert_eq!(journal.story(), &before);
    let left = scan::load(&journal.path, &journal.file).unwrap().undamaged().unwrap();
    assert_eq!(left, before);
}

#[test]
fn a_record_that_cannot_be_taken_back_is_in_doubt() {
    let dir = TempDir::new().unwrap();
    let mut journal = create_with(&dir, Side::Outgoing, [released()]);
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    journal.file = shelf::lock_now(full).unwrap();
    assert!(matches!(journal.append(Record::Go), Err(Error::InDoubt { record: "go", .. })));
    assert!(matches!(journal.append(note("?")), Err(Error::Poisoned { .. })));
}

/// Stands for a full file system: a file in memory, sealed at its length.
fn file_that_cannot_grow(bytes: &[u8]) -> Flock<File> {
    let mut file = File::from(memfd_create(c"journal", MFdFlags::MFD_ALLOW_SEALING).unwrap());
    file.write_all(bytes).unwrap();
    fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_GROW)).unwrap();
    shelf::lock_now(file).unwrap()
}

#[test]
fn notes_do_not_take_the_room_of_what_decides() {
    let dir = TempDir::new().unwrap();
    let mut journal = create(&dir, Side::Outgoing);
    let long = "n".repeat(RECORD_LEN_MAX / 2);
    (0..9).for_each(|_| journal.append(note(&long)).unwrap());
    assert!(journal.len < 2 * NOTES_LEN_MAX);
    assert!(matches!(journal.append(note(&"n".repeat(RECORD_LEN_MAX))), Ok(())));
    journal.append(released()).unwrap();
    assert_eq!(read(dir.path(), journal.story().head.id).unwrap().unwrap().stage(), Stage::Released);

    let mut other = create(&dir, Side::Outgoing);
    assert!(matches!(other.append(note(&"n".repeat(RECORD_LEN_MAX))), Err(Error::TooLong { .. })));
    other.append(released()).unwrap();
}

#[test]
fn what_is_out_of_order_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let mut journal = create(&dir, Side::Outgoing);
    let refused = journal.append(Record::Go).unwrap_err();
    assert!(refused.to_string().starts_with("Record go cannot follow open in the outgoing migration"), "{refused}");
    journal.append(released()).unwrap();
    assert_eq!(read(dir.path(), journal.story().head.id).unwrap().as_ref(), Some(journal.story()));
}

#[test]
fn readers_and_a_writer_do_not_disturb_each_other() {
    let dir = TempDir::new().unwrap();
    let mut journal = create(&dir, Side::Outgoing);
    let id = journal.story().head.id;
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mut seen = 0;
            while seen < 100 {
                let story = read(dir.path(), id).unwrap().unwrap();
                assert!(story.entries.len() >= seen);
                seen = story.entries.len();
                assert_eq!(list(dir.path()).unwrap().len(), 1);
            }
        });
        let notes = (0..100).map(|number| note(&number.to_string()));
        notes.for_each(|note| journal.append(note).unwrap());
        journal.append(done(Done::Failed)).unwrap();
        reading.join().unwrap();
    });
}
