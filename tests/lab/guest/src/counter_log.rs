//! The counter's log on one data disk: a ring of records of 32 bytes in a file that is written out once and then
//! overwritten in place, each write followed by fdatasync.
//!
//! A record is a line of text, `       NUMBER  UPTIME_MS\n`, in the slot NUMBER modulo the ring's length, so that the file
//! can be read from dom0 too. Writing in place keeps a number's cost at one block and one flush; so that the file
//! system's own structures are at work as well, a small file is made anew every [`MARK_EVERY`] numbers.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

/// The ring's file in the data disk's directory.
pub const FILE_NAME: &str = "counter.log";
/// Bytes of a record.
const RECORD_LEN: usize = 32;
/// Records of the ring: 2 MiB, 54 minutes at 20 Hz.
const SLOTS: u64 = 65_536;
/// Most records that one write and one fdatasync confirm.
const BATCH_MAX: u64 = 4096;
/// Bytes written at once when the file is written out; divides the ring's length.
const BLANK_LEN: usize = 128 * 1024;
/// Records that are read at once; divides [`SLOTS`].
const PIECE_SLOTS: usize = 1024;
/// A small file is made anew whenever the counter passes a multiple of this.
const MARK_EVERY: u64 = 64;
/// That many small files exist at most.
const MARKS: u64 = 8;

/// The log of one disk, open for writing.
#[derive(Debug)]
pub struct CounterLog {
    dir: PathBuf,
    file: File,
    last: u64,
}

impl CounterLog {
    /// Opens the log in `dir`, or makes it, and finds the end of its unbroken sequence.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join(FILE_NAME);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        write_out(&file)?;
        sync_directory(dir)?;
        let last = end_of_unbroken(&read_slots(&file)?);
        Ok(Self { dir: dir.to_owned(), file, last })
    }

    /// The last number that is known to be on the disk, with all before it.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Writes the numbers after [`last`](Self::last) up to `n`, or as many of them as one batch holds, and waits until the disk has them.
    ///
    /// # Errors
    /// Whatever the file system says; the numbers that are not confirmed are written again by the next call.
    pub fn append_up_to(&mut self, n: u64, uptime_ms: u64) -> io::Result<()> {
        let first = (self.last + 1).max(n.saturating_sub(SLOTS - 1));
        let end = n.min(first + BATCH_MAX - 1);
        let mut next = first;
        while next <= end {
            let run_end = end.min(next - next % SLOTS + SLOTS - 1);
            let records = format_records(next, run_end, uptime_ms);
            self.file.write_all_at(records.as_bytes(), offset_of(next))?;
            next = run_end + 1;
        }
        self.file.sync_data()?;
        let marks_due = end / MARK_EVERY != self.last / MARK_EVERY;
        self.last = end;
        if marks_due { self.make_mark(end) } else { Ok(()) }
    }

    fn make_mark(&self, n: u64) -> io::Result<()> {
        let path = self.dir.join(format!("mark-{}", n / MARK_EVERY % MARKS));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = File::create_new(&path)?;
        writeln!(file, "{n}")?;
        file.sync_all()?;
        sync_directory(&self.dir)
    }
}

/// Reads the log in `dir` back from the disk, not from the page cache, and counts the numbers up to `synced` that the ring should hold and does not.
///
/// # Errors
/// Whatever the file system says.
pub fn count_holes(dir: &Path, synced: u64) -> io::Result<u64> {
    let file = File::open(dir.join(FILE_NAME))?;
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    let slots = read_slots(&file)?;
    let mut holes = 0;
    for n in oldest_before(synced)..=synced {
        // A larger number in its slot: the writer has come round meanwhile.
        if slots[slot_of(n)].is_none_or(|found| found < n) {
            holes += 1;
        }
    }
    Ok(holes)
}

/// Brings the file to its full length with blank records, so that no later write changes the file system's structures.
fn write_out(file: &File) -> io::Result<()> {
    let full_len = SLOTS * RECORD_LEN as u64;
    let len = file.metadata()?.len();
    if len >= full_len {
        return Ok(());
    }
    let blank = vec![b'\n'; BLANK_LEN];
    for offset in (0..full_len).step_by(blank.len()) {
        if offset + blank.len() as u64 > len {
            file.write_all_at(&blank, offset)?;
        }
    }
    file.sync_all()
}

fn format_records(first: u64, end: u64, uptime_ms: u64) -> String {
    let mut records = String::new();
    for n in first..=end {
        writeln!(records, "{n:>19} {:>11}", uptime_ms % 100_000_000_000).expect("writing to a String cannot fail");
    }
    records
}

fn read_slots(file: &File) -> io::Result<Vec<Option<u64>>> {
    let count = usize::try_from(SLOTS).expect("the ring fits in memory");
    let mut slots = Vec::with_capacity(count);
    // In pieces: the guest has little memory to spare.
    let mut piece = vec![0; RECORD_LEN * PIECE_SLOTS];
    while slots.len() < count {
        file.read_exact_at(&mut piece, (slots.len() * RECORD_LEN) as u64)?;
        let first = slots.len();
        slots.extend(piece.chunks_exact(RECORD_LEN).zip(first..).map(|(record, slot)| parse_record(slot, record)));
    }
    Ok(slots)
}

/// A record counts only whole and in its own slot.
fn parse_record(slot: usize, record: &[u8]) -> Option<u64> {
    let line = std::str::from_utf8(record).ok()?.strip_suffix('\n')?;
    let (n, uptime_ms) = line.trim_start().split_once(' ')?;
    uptime_ms.trim_start().parse::<u64>().ok()?;
    n.parse().ok().filter(|n| slot_of(*n) == slot)
}

/// The largest number before which nothing is missing in the ring. What stands behind a hole was never confirmed and is written again.
fn end_of_unbroken(slots: &[Option<u64>]) -> u64 {
    let Some(max) = slots.iter().flatten().max() else {
        return 0;
    };
    let mut end = oldest_before(*max) - 1;
    while slots[slot_of(end + 1)] == Some(end + 1) {
        end += 1;
    }
    end
}

/// The oldest number that the ring still holds when `n` is its newest; numbers begin at 1.
fn oldest_before(n: u64) -> u64 {
    n.saturating_sub(SLOTS - 1).max(1)
}

fn slot_of(n: u64) -> usize {
    usize::try_from(n % SLOTS).expect("a slot is less than the ring's length")
}

fn offset_of(n: u64) -> u64 {
    n % SLOTS * RECORD_LEN as u64
}

fn sync_directory(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_with(dir: &Path, last: u64) -> CounterLog {
        let mut log = CounterLog::open(dir).unwrap();
        while log.last() < last {
            log.append_up_to(last, 5).unwrap();
        }
        log
    }

    fn blank_out(log: &CounterLog, n: u64) {
        log.file.write_all_at(&[b' '; RECORD_LEN], offset_of(n)).unwrap();
    }

    #[test]
    fn a_new_log_is_empty_and_goes_on_where_it_ended() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(CounterLog::open(dir.path()).unwrap().last(), 0);
        log_with(dir.path(), 100);
        assert_eq!(CounterLog::open(dir.path()).unwrap().last(), 100);
        assert_eq!(count_holes(dir.path(), 100).unwrap(), 0);
    }

    #[test]
    fn the_ring_wraps() {
        let dir = tempfile::tempdir().unwrap();
        log_with(dir.path(), SLOTS + 1000);
        assert_eq!(CounterLog::open(dir.path()).unwrap().last(), SLOTS + 1000);
        assert_eq!(count_holes(dir.path(), SLOTS + 1000).unwrap(), 0);
    }

    #[test]
    fn a_disk_far_behind_takes_the_newest_numbers_only() {
        let dir = tempfile::tempdir().unwrap();
        log_with(dir.path(), 10 * SLOTS);
        assert_eq!(CounterLog::open(dir.path()).unwrap().last(), 10 * SLOTS);
    }

    #[test]
    fn a_lost_record_ends_the_unbroken_sequence() {
        let dir = tempfile::tempdir().unwrap();
        let log = log_with(dir.path(), 100);
        blank_out(&log, 58);
        assert_eq!(CounterLog::open(dir.path()).unwrap().last(), 57);
        assert_eq!(count_holes(dir.path(), 100).unwrap(), 1);
    }

    #[test]
    fn a_number_not_written_is_a_hole() {
        let dir = tempfile::tempdir().unwrap();
        log_with(dir.path(), 100);
        assert_eq!(count_holes(dir.path(), 102).unwrap(), 2);
    }

    #[test]
    fn records_in_anothers_slot_or_torn_do_not_count() {
        let record = format_records(7, 7, 1234);
        assert_eq!(record.len(), RECORD_LEN);
        assert_eq!(parse_record(7, record.as_bytes()), Some(7));
        assert_eq!(parse_record(8, record.as_bytes()), None);
        assert_eq!(parse_record(7, &record.as_bytes()[..20]), None);
        assert_eq!(parse_record(0, &[b'\n'; RECORD_LEN]), None);
    }

    #[test]
    fn marks_stay_few() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = CounterLog::open(dir.path()).unwrap();
        for n in 1..=MARK_EVERY * (MARKS + 3) {
            log.append_up_to(n, 0).unwrap();
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 9);
    }
}
