//! A journal as a crash, a bad disk or a later program leaves it. It is refused, or it is a story that a process could have written, and
//! one that can be gone on with.
//!
//! The input is the lines of a journal without their checksums, which are put behind them. A line that begins with `!` is left as it is,
//! without the sign; so is the last one where no newline follows it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use bascule::journal::{Journal, Record, Stage, Story};
use tempfile::TempDir;
use uuid::Uuid;

/// The migration of the journals in the corpus.
const ID: Uuid = Uuid::from_u128(0x6f1c_5b1e_3d0a_4c57_9b5e_2f6a_1d0c_9e77);

static DIR: LazyLock<TempDir> = LazyLock::new(|| crate::memory_dir().expect("a directory"));

pub(crate) fn run(bytes: &[u8]) {
    let path = journal_file(DIR.path());
    fs::write(&path, with_checksums(bytes)).expect("a journal");
    match Journal::adopt(DIR.path(), ID) {
        Ok(journal) => go_on(journal.expect("nobody else holds it")),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let finished = journal_file(&DIR.path().join("finished"));
    [path, finished].iter().for_each(|path| drop(fs::remove_file(path)));
}

fn journal_file(dir: &Path) -> PathBuf {
    dir.join(format!("{ID}.journal"))
}

fn with_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        match (line.strip_prefix(b"!"), line.strip_suffix(b"\n")) {
            (Some(raw), _) => text.extend_from_slice(raw),
            (None, Some(whole)) => text.extend(sealed(whole)),
            (None, None) => text.extend_from_slice(line),
        }
    }
    text
}

fn sealed(line: &[u8]) -> Vec<u8> {
    [line, format!(" {:08x}\n", crc32fast::hash(line)).as_bytes()].concat()
}

/// A story that is taken over can be gone on with, and what is added is read with all that was there.
fn go_on(mut journal: Journal) {
    let before = journal.story().clone();
    check_order(&before);
    let appended = journal.append(Record::Note { text: "taken over".into() });
    assert_eq!(appended.is_ok(), !before.is_done(), "{appended:?}");
    drop(journal);
    let again = Journal::adopt(DIR.path(), ID).expect("what we wrote").expect("nobody else holds it");
    let (kept, added) = again.story().entries.split_at(before.entries.len());
    assert_eq!(kept, before.entries);
    assert_eq!((added.len(), again.story().torn), if before.is_done() { (0, before.torn) } else { (1, false) });
    assert_eq!((again.story().stage(), &again.story().head), (before.stage(), &before.head));
}

/// What no process promises after what it has promised, whatever the program's own table says.
fn check_order(story: &Story) {
    let at = |wanted: &dyn Fn(&Record) -> bool| story.entries.iter().position(|entry| wanted(&entry.record));
    let go = at(&|record| matches!(record, Record::Go));
    let returned = at(&|record| matches!(record, Record::Returned { .. }));
    let ready = at(&|record| matches!(record, Record::Ready { .. }));
    let owned = at(&|record| matches!(record, Record::Owned));
    let started = at(&|record| matches!(record, Record::Started));
    let aborted = at(&|record| matches!(record, Record::Aborted { .. }));
    let done = at(&|record| matches!(record, Record::Done { .. }));
    assert!(returned.is_none() || (go.is_some() && go < returned), "RETURNED without GO");
    assert!(owned.is_none() || (ready.is_some() && ready < owned), "OWNED without READY");
    assert!(started.is_none() || (owned.is_some() && owned < started), "STARTED without OWNED");
    assert!(started.is_none() || aborted.is_none(), "STARTED and ABORTED");
    assert!(owned.is_none() || aborted.is_none() || owned < aborted, "OWNED after ABORTED");
    assert!(done.is_none_or(|done| done + 1 == story.entries.len()), "something after DONE");
    assert!(go.is_none() || (ready.is_none() && owned.is_none()), "records of both ends");
    assert_eq!(story.is_done(), matches!(story.stage(), Stage::Done(_)));
}
