//! Reads a journal to its end, or as far as it can be read.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;
use std::time::{Duration, Instant};

use super::error::{Error, io_error};
use super::line::{Flaw, Line};
use super::{Entry, NOTES_LEN_MAX, RECORD_LEN_MAX, Story, order};
use crate::wait::retry_until;

/// The longest journal that is read, in bytes: its notes, and room for what decides.
const LEN_MAX: u64 = NOTES_LEN_MAX + 15 * RECORD_LEN_MAX as u64;
/// How long damage must be seen, without the lock, to be some.
const DAMAGE_SEEN_MIN: Duration = Duration::from_millis(5);

/// A journal whose head can be read.
#[derive(Debug)]
pub(super) struct Scan {
    /// What it says, up to the damage.
    pub(super) story: Story,
    /// Up to where it holds whole records, in bytes.
    pub(super) len: u64,
    /// What is wrong with the rest.
    damage: Option<Error>,
}

impl Scan {
    /// The story, if nothing is wrong with it.
    pub(super) fn undamaged(self) -> Result<Story, Error> {
        self.damage.map_or(Ok(self.story), Err)
    }

    /// Whether something is left to do, as far as one can tell.
    pub(super) fn is_open(&self) -> bool {
        self.damage.is_some() || !self.story.is_done()
    }
}

/// Reads a journal without its lock, or `None` when it is not there. What it says may not be on disk yet.
///
/// A writer that cuts off a torn record and writes the next one between two of our reads looks like damage: we look again.
pub(super) fn look(path: &Path) -> Result<Option<(Scan, File)>, Error> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(io_error(path))?,
    };
    let deadline = Instant::now() + DAMAGE_SEEN_MIN;
    let scan = retry_until(deadline, || load(path, &file), |scan| !is_damaged(scan))?;
    Ok(Some((scan, file)))
}

fn is_damaged(scan: &Result<Scan, Error>) -> bool {
    matches!(scan, Ok(Scan { damage: Some(_), .. }) | Err(Error::Damaged { .. }))
}

/// Reads a journal.
///
/// # Errors
/// Its head cannot be read. Damage after it is in the [`Scan`].
pub(super) fn load(path: &Path, mut file: &File) -> Result<Scan, Error> {
    let mut bytes = Vec::new();
    file.rewind().map_err(io_error(path))?;
    file.take(LEN_MAX + 1).read_to_end(&mut bytes).map_err(io_error(path))?;
    if bytes.len() as u64 > LEN_MAX {
        return Err(Error::TooLong { path: path.to_owned(), len: bytes.len() });
    }
    scan(path, &bytes)
}

/// Reads the bytes of a journal.
pub(super) fn scan(path: &Path, bytes: &[u8]) -> Result<Scan, Error> {
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default();
    let (opened_at, head) = Line::read(first).and_then(|line| line.head()).map_err(|flaw| damaged(path, 1, flaw))?;
    if path.file_stem().is_some_and(|stem| *stem != *head.id.to_string()) {
        return Err(damaged(path, 1, Flaw::Unknown("it is another migration's")));
    }
    let story = Story { head, opened_at, entries: Vec::new(), torn: false };
    let mut scan = Scan { story, len: first.len() as u64, damage: None };
    for (number, line) in (2..).zip(lines) {
        let is_last = scan.len + line.len() as u64 == bytes.len() as u64;
        match entry(line) {
            Ok(entry) if order::check(&scan.story, &entry.record).is_ok() => scan.take(entry, line),
            Err(Flaw::NotWhole) if is_last => scan.story.torn = true,
            Ok(_) => scan.damage = Some(damaged(path, number, Flaw::Unknown("its record is out of order"))),
            Err(flaw) => scan.damage = Some(damaged(path, number, flaw)),
        }
        if scan.damage.is_some() {
            break;
        }
    }
    Ok(scan)
}

impl Scan {
    fn take(&mut self, entry: Entry, line: &[u8]) {
        self.story.entries.push(entry);
        self.len += line.len() as u64;
    }
}

fn entry(line: &[u8]) -> Result<Entry, Flaw> {
    Line::read(line)?.entry()
}

fn damaged(path: &Path, line: usize, flaw: Flaw) -> Error {
    let path = path.to_owned();
    match flaw {
        Flaw::NotWhole => Error::Damaged { path, line, flaw: "its checksum is wrong" },
        Flaw::Unknown(flaw) => Error::Damaged { path, line, flaw },
        Flaw::Future(format) => Error::Future { path, format },
    }
}
