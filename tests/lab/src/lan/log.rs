//! The witness's log: a line for each datagram of a guest, `MONOTONIC_US REALTIME_US NODE DATAGRAM`.
//!
//! One process writes and any number read while it does. The log has two files at most: when the current one is full it
//! becomes `witness.log.1` in place of the one before.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use lab_guest::wire::Datagram;

/// Bytes after which a file is full: both together are 64 MiB at most.
const FILE_LEN_MAX: u64 = 32 << 20;

/// One datagram as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The host's CLOCK_MONOTONIC, in whole microseconds once it has been through the log.
    pub at: Duration,
    /// The host's CLOCK_REALTIME, likewise.
    pub wall: SystemTime,
    /// The node that it came from.
    pub node: u8,
    /// What was said.
    pub datagram: Datagram,
}

impl Record {
    fn to_line(&self) -> String {
        let wall = self.wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        format!("{} {} {} {}\n", self.at.as_micros(), wall.as_micros(), self.node, self.datagram)
    }

    /// Reads a line; `None` for anything else.
    fn parse(line: &str) -> Option<Self> {
        let mut parts = line.trim_end().splitn(4, ' ');
        Some(Self {
            at: Duration::from_micros(parts.next()?.parse().ok()?),
            wall: UNIX_EPOCH + Duration::from_micros(parts.next()?.parse().ok()?),
            node: parts.next()?.parse().ok()?,
            datagram: Datagram::parse(parts.next()?.as_bytes()).ok()?,
        })
    }
}

/// The hub's end of the log.
#[derive(Debug)]
pub struct LogWriter {
    path: PathBuf,
    file: File,
    length: u64,
    length_max: u64,
}

impl LogWriter {
    /// Begins a new log at `path`. What an earlier hub saw is removed: its times may be of before the host's last boot.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        for old in [previous(path), path.to_owned()] {
            match fs::remove_file(&old) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("{} cannot be removed", old.display()));
                }
                _ => {}
            }
        }
        let file = create(path)?;
        Ok(Self { path: path.to_owned(), file, length: 0, length_max: FILE_LEN_MAX })
    }

    /// Adds a record. One whose text would break the line is left out.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn write(&mut self, record: &Record) -> anyhow::Result<()> {
        let line = record.to_line();
        if line.trim_end_matches('\n').contains(char::is_control) {
            return Ok(());
        }
        if self.length + line.len() as u64 > self.length_max {
            fs::rename(&self.path, previous(&self.path))?;
            self.file = create(&self.path)?;
            self.length = 0;
        }
        self.file.write_all(line.as_bytes()).context("The witness's log cannot be written")?;
        self.length += line.len() as u64;
        Ok(())
    }
}

/// A reader of the log, from its beginning on.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    file: Option<BufReader<File>>,
    /// The beginning of a line whose end is not there yet.
    partial: String,
}

impl LogReader {
    /// Reads the log at `path`, which need not exist yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        let file = [previous(path), path.to_owned()].iter().find_map(|path| File::open(path).ok());
        Self { path: path.to_owned(), file: file.map(BufReader::new), partial: String::new() }
    }

    /// Hands over what has come since the last call. A log that cannot be read has nothing new.
    pub fn read_new(&mut self, mut take: impl FnMut(Record)) {
        self.read_to_end(&mut take);
        while let Some(next) = self.next_file() {
            // The writer may have added to the old file after the end was reached.
            self.read_to_end(&mut take);
            self.file = Some(BufReader::new(next));
            self.partial.clear();
            self.read_to_end(&mut take);
        }
    }

    fn read_to_end(&mut self, take: &mut impl FnMut(Record)) {
        let Some(file) = &mut self.file else { return };
        while file.read_line(&mut self.partial).is_ok_and(|length| length > 0) {
            if self.partial.ends_with('\n') {
                Record::parse(&self.partial).into_iter().for_each(&mut *take);
                self.partial.clear();
            }
        }
    }

    /// The current file, if it is another than the one that is open.
    fn next_file(&self) -> Option<File> {
        let current = File::open(&self.path).ok()?;
        let inode_of = |file: &File| file.metadata().map(|metadata| metadata.ino()).ok();
        let open = self.file.as_ref().and_then(|file| inode_of(file.get_ref()));
        (inode_of(&current)? != open.unwrap_or_default()).then_some(current)
    }
}

/// A file of its own inode each time, which is how readers notice that there is a new one.
fn create(path: &Path) -> anyhow::Result<File> {
    File::create_new(path).with_context(|| format!("{} cannot be written", path.display()))
}

fn previous(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

#[cfg(test)]
mod tests {
    use lab_guest::wire::{BootId, Report};

    use super::*;

    fn record(n: u64) -> Record {
        let report = Report { name: "vm0".to_owned(), boot: BootId(7), n, ..Report::default() };
        Record {
            at: Duration::from_micros(1_000_000 + n),
            wall: UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_000 + n),
            node: 2,
            datagram: Datagram::Report(report),
        }
    }

    fn numbers(reader: &mut LogReader) -> Vec<u64> {
        let mut numbers = Vec::new();
        reader.read_new(|record| match record.datagram {
            Datagram::Report(report) => numbers.push(report.n),
            Datagram::Answer(_) => {}
        });
        numbers
    }

    #[test]
    fn a_record_survives_the_log() {
        assert_eq!(Record::parse(&record(5).to_line()), Some(record(5)));
        assert_eq!(Record::parse("# nothing of ours"), None);
    }

    #[test]
    fn a_reader_follows_the_writer_over_the_change_of_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("witness.log");
        let mut reader = LogReader::new(&path);
        assert!(numbers(&mut reader).is_empty());
        let mut writer = LogWriter { length_max: 2000, ..LogWriter::open(&path).unwrap() };
        let mut seen = Vec::new();
        for n in 1..=100 {
            writer.write(&record(n)).unwrap();
            if n % 7 == 0 {
                seen.extend(numbers(&mut reader));
            }
        }
        seen.extend(numbers(&mut reader));
        assert_eq!(seen, (1..=100).collect::<Vec<u64>>());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_line_that_is_not_whole_yet_waits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("witness.log");
        let line = record(1).to_line();
        let (begin, end) = line.split_at(20);
        fs::write(&path, begin).unwrap();
        let mut reader = LogReader::new(&path);
        assert!(numbers(&mut reader).is_empty());
        fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(end.as_bytes()).unwrap();
        assert_eq!(numbers(&mut reader), [1]);
    }
}
