//! What can be wrong with a journal.

use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::record::FORMAT;
use super::{RECORD_LEN_MAX, Stage};
use crate::admission::Side;

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A migration has its journal already.
    #[error("Journal {} exists", path.display())]
    Exists {
        /// The journal.
        path: PathBuf,
    },
    /// There is no such journal.
    #[error("Migration {id} has no journal in {}", dir.display())]
    Missing {
        /// The migration.
        id: Uuid,
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// A record is not what was written; it is not the last one, or it is the first.
    #[error("Journal {} is damaged in line {line}: {flaw}", path.display())]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        flaw: &'static str,
    },
    /// A newer program wrote it.
    #[error("Journal {} has format {format}; this program reads up to {FORMAT}", path.display())]
    Future {
        /// The journal.
        path: PathBuf,
        /// Its format.
        format: u32,
    },
    /// The record cannot follow what the journal says.
    #[error("Record {record} cannot follow {stage} in the {side} migration {id}")]
    OutOfOrder {
        /// The migration.
        id: Uuid,
        /// Which end of it this host is.
        side: Side,
        /// What the journal says.
        stage: Stage,
        /// The record's keyword.
        record: &'static str,
    },
    /// The record was not written; the journal is as it was.
    #[error("Record {record} could not be appended to journal {}", path.display())]
    NotAppended {
        /// The journal.
        path: PathBuf,
        /// The record's keyword.
        record: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The record was not written as it should be, and could not be taken back either: a crash may show it, or not.
    #[error("Record {record} is in journal {} or not: it could neither be written nor taken back", path.display())]
    InDoubt {
        /// The journal.
        path: PathBuf,
        /// The record's keyword.
        record: &'static str,
        /// Why it could not be written.
        #[source]
        source: io::Error,
    },
    /// An earlier append failed.
    #[error("Journal {} takes no more records since one could not be appended", path.display())]
    Poisoned {
        /// The journal.
        path: PathBuf,
    },
    /// A record, or a journal, that is longer than any we write.
    #[error("Journal {} cannot have {len} bytes, nor a record more than {RECORD_LEN_MAX}", path.display())]
    TooLong {
        /// The journal.
        path: PathBuf,
        /// Its length in bytes.
        len: usize,
    },
    /// A record has no form as text.
    #[error("Record for journal {} cannot be written as JSON", path.display())]
    Unwritable {
        /// The journal.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Another process kept the directory locked.
    #[error("Directory {} stayed locked by another process", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// A file or directory could not be used.
    #[error("Journal {} could not be used", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

pub(super) fn io_error(path: &Path) -> impl Fn(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Io { path: path.clone(), source }
}
