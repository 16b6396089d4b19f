//! The journal: what this host has promised in a migration, on disk before it is said or done.
//!
//! Each host keeps one file per migration, `DIR/ID.journal`, lines of text that are only ever appended; [`Record`] lists
//! what they say and [`Story`] is the whole of them. A finished journal moves to `DIR/finished`, so that a look for open
//! ones opens no other.
//!
//! Invariants: a record is on disk before [`Journal::append`] returns; what was read from an adopted journal, too, even if
//! its writer was killed before it had seen to that. A last record that is not whole was never acted upon and counts for
//! nothing; a damaged earlier one is an error. One process at a time works on a journal: it holds the file's lock (flock).

mod error;
mod line;
mod order;
mod record;
mod scan;
mod shelf;
mod story;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

pub use jiff::Timestamp;
use nix::fcntl::Flock;
use uuid::Uuid;

pub use self::error::Error;
use self::error::io_error;
pub use self::record::{Done, FORMAT, Head, JournaledVolume, Peer, Record, Sample};
pub use self::shelf::{Listed, keeps_domain, list, open_for, open_of, prune, read, unfinished};
pub use self::story::{Entry, Stage, Story, this_boot};

/// Where the journals are, unless a caller says otherwise.
pub const DIR: &str = "/var/lib/bascule";
/// Finished journals kept as history.
pub const KEPT: usize = 100;
/// The longest record, in bytes: a domain with some hundred volumes.
pub const RECORD_LEN_MAX: usize = 1 << 20;
/// From this length on, in bytes, a journal takes no more notes: what decides must find room.
pub const NOTES_LEN_MAX: u64 = 1 << 20;

/// The journal of a migration that this process works on. Dropping it lets the lock go; the file stays.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: Flock<File>,
    /// Up to where the file holds whole records, in bytes.
    len: u64,
    story: Story,
    poisoned: bool,
}

impl Journal {
    /// Opens the journal of a new migration; its first record is on disk then, and so is the file's name.
    ///
    /// # Errors
    /// [`Error::Exists`] when there is one of that id. After any error there is no such journal, unless it existed.
    pub fn create(dir: &Path, head: Head) -> Result<Self, Error> {
        shelf::make_dir(dir)?;
        let _turn = shelf::lock_dir(dir)?;
        if let Some(path) = shelf::find(dir, head.id)? {
            return Err(Error::Exists { path });
        }
        let (path, opened_at) = (shelf::open_path(dir, head.id), line::now());
        let text = line::write_head(opened_at, &head).map_err(|error| error.at(&path))?;
        let file = publish(&path, &text)?;
        let story = Story { head, opened_at, entries: Vec::new(), torn: false };
        Ok(Self { path, file, len: text.len() as u64, story, poisoned: false })
    }

    /// Takes over a journal whose process is gone, or `None` while another process holds it. What it says is on disk then.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Damaged`], [`Error::Future`], [`Error::Io`].
    pub fn adopt(dir: &Path, id: Uuid) -> Result<Option<Self>, Error> {
        let missing = || Error::Missing { id, dir: dir.to_owned() };
        let Some(file) = shelf::lock_journal(dir, id)?.ok_or_else(missing)? else { return Ok(None) };
        // Who held it before may have finished it, which moves it; then somebody may have pruned it.
        let path = shelf::find(dir, id)?.ok_or_else(missing)?;
        if file.metadata().map_err(io_error(&path))?.nlink() == 0 {
            return Err(missing());
        }
        let scan = scan::load(&path, &file)?;
        // It may have been killed between the write and the sync: nobody acts on what could still vanish.
        file.sync_all().map_err(io_error(&path))?;
        shelf::sync_name(&path)?;
        let len = scan.len;
        Ok(Some(Self { path, file, len, story: scan.undamaged()?, poisoned: false }))
    }

    /// Appends a record; it is on disk when this returns. The last one, [`Record::Done`], sets the journal aside as history.
    /// A note beyond [`NOTES_LEN_MAX`] is let go.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] and [`Error::TooLong`] change nothing. [`Error::NotAppended`]: the record is not in the
    /// journal. [`Error::InDoubt`]: it may be. After these two every further append is [`Error::Poisoned`]: what is on disk
    /// decides, and who goes on must adopt it anew.
    pub fn append(&mut self, record: Record) -> Result<(), Error> {
        if self.poisoned {
            return Err(Error::Poisoned { path: self.path.clone() });
        }
        order::check(&self.story, &record)?;
        if matches!(record, Record::Note { .. }) && self.len >= NOTES_LEN_MAX {
            tracing::warn!(path = %self.path.display(), "journal is full of notes: no more are kept");
            return Ok(());
        }
        let entry = Entry { at: line::now(), record };
        let text = line::write_entry(&entry).map_err(|error| error.at(&self.path))?;
        self.write(&text).map_err(|source| self.give_up(entry.record.keyword(), source))?;
        self.story.entries.push(entry);
        if self.story.is_done() {
            self.set_aside();
        }
        Ok(())
    }

    /// What the journal says.
    #[must_use]
    pub fn story(&self) -> &Story {
        &self.story
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        if self.story.torn {
            self.file.set_len(self.len)?;
        }
        self.file.write_all_at(text.as_bytes(), self.len)?;
        self.file.sync_data()?;
        self.len += text.len() as u64;
        self.story.torn = false;
        Ok(())
    }

    /// After a failed write: cuts the file back to what it held before, if that is possible, and takes no more.
    fn give_up(&mut self, record: &'static str, source: io::Error) -> Error {
        self.poisoned = true;
        let path = self.path.clone();
        match self.file.set_len(self.len).and_then(|()| self.file.sync_data()) {
            Ok(()) => Error::NotAppended { path, record, source },
            Err(_) => Error::InDoubt { path, record, source },
        }
    }

    /// Moves a finished journal out of the way. Where that fails it stays among the open ones and is known by its last
    /// record.
    fn set_aside(&mut self) {
        match shelf::set_aside(&self.path) {
            Ok(path) => self.path = path,
            Err(error) => tracing::warn!(path = %self.path.display(), %error, "finished journal not set aside"),
        }
    }
}

/// Makes a journal visible locked, complete and durable at once: it is written under another name, and the lock moves
/// with it. Only under the directory's lock: a draft that is met then is a dead process's.
fn publish(path: &Path, text: &str) -> Result<Flock<File>, Error> {
    let draft = path.with_extension(shelf::DRAFT);
    let published = write_draft(&draft, text).and_then(|file| {
        fs::rename(&draft, path).map_err(io_error(path))?;
        shelf::sync_name(path)?;
        Ok(file)
    });
    if published.is_err() {
        // Nobody has been promised anything: better no journal than one that nobody works on.
        for leftover in [draft.as_path(), path] {
            drop(fs::remove_file(leftover)); // not made, or prune finds it
        }
    }
    published
}

fn write_draft(draft: &Path, text: &str) -> Result<Flock<File>, Error> {
    let mut options = File::options();
    let file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(draft);
    let file = shelf::lock_now(file.map_err(io_error(draft))?).map_err(io_error(draft))?;
    file.write_all_at(text.as_bytes(), 0).and_then(|()| file.sync_all()).map_err(io_error(draft))?;
    Ok(file)
}

#[cfg(test)]
mod tests;
