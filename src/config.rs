//! The configuration: `/etc/bascule/bascule.toml`, its defaults, and where each value comes from.
//!
//! [`tables`] declares every setting once, with its default and what it is for; reading, showing, the complete file that
//! `bascule config default` prints and the import of xend's are made from that. The file decides who may send domains to this
//! host, hence nobody but root may be able to write it. All that is wrong with a file is told at once.

mod check;
mod listen;
mod pattern;
mod sxp;
mod tables;
mod value;
mod write;
pub mod xend;

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

pub use self::listen::Address;
pub use self::pattern::PathPattern;
use self::tables::Setting;
pub use self::tables::{Config, Guests, Log, Relocation, Security, State, Timeouts};
use self::value::Value;
pub use self::value::{Count, Level};

/// Where the configuration is, unless the command line says otherwise.
pub const FILE: &str = "/etc/bascule/bascule.toml";
/// The longest configuration, in bytes.
pub const FILE_LEN_MAX: u64 = 1 << 20;

/// Where a value comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    #[default]
    Default,
    /// A file, and the line in it, from 1.
    File(PathBuf, usize),
    /// An option of the command line.
    CommandLine,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(file, line) => write!(f, "{}:{line}", file.display()),
            Origin::CommandLine => f.write_str("command line"),
        }
    }
}

/// One thing that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Complaint {
    /// The line, from 1.
    pub line: usize,
    /// What was found and what is allowed.
    pub what: String,
}

/// Why a configuration is not used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is there and cannot be read.
    #[error("{} cannot be read", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others than root could write it.
    #[error("{} {found}, and it decides who may connect: chown root and chmod go-w", file.display())]
    Untrusted {
        /// The file.
        file: PathBuf,
        /// Who could.
        found: String,
    },
    /// It is not a configuration.
    #[error("{}", lines(file, complaints))]
    Wrong {
        /// The file.
        file: PathBuf,
        /// All that is wrong, by line.
        complaints: Vec<Complaint>,
    },
}

fn lines(file: &Path, complaints: &[Complaint]) -> String {
    let each = complaints.iter().map(|Complaint { line, what }| format!("{}:{line}: {what}", file.display()));
    each.collect::<Vec<_>>().join("\n")
}

/// A setting as it is in force.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Its table.
    pub table: &'static str,
    /// Its key.
    pub key: &'static str,
    /// Its value, as TOML writes it.
    pub toml: String,
    /// The same as JSON.
    pub json: serde_json::Value,
    /// Where it comes from.
    pub origin: Origin,
}

impl Config {
    /// Reads a file; one that is missing says nothing, and everything has its default.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Untrusted`], or all that is [`Error::Wrong`].
    pub fn load(file: &Path) -> Result<Config, Error> {
        let unreadable = |source| Error::Read { file: file.to_owned(), source };
        let opened = match OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Config::default()),
            opened => opened.map_err(unreadable)?,
        };
        let meta = opened.metadata().map_err(unreadable)?;
        if !meta.is_file() {
            return Err(unreadable(io::Error::other("it is not a regular file")));
        }
        if let Some(found) = distrust(meta.mode(), meta.uid()) {
            return Err(Error::Untrusted { file: file.to_owned(), found });
        }
        Config::parse(file, &read_bounded(opened).map_err(unreadable)?)
    }

    /// Reads the text of a file; `file` is its name in errors and origins.
    ///
    /// # Errors
    /// [`Error::Wrong`], with everything that is.
    pub fn parse(file: &Path, text: &str) -> Result<Config, Error> {
        check::read(file, text).map_err(|complaints| Error::Wrong { file: file.to_owned(), complaints })
    }

    /// The complete file with these values, each under what it is for.
    #[must_use]
    pub fn to_toml(&self) -> String {
        write::file(self)
    }

    /// Every setting, in the order of the file.
    #[must_use]
    pub fn shown(&self) -> Vec<Shown> {
        let mut shown = Vec::new();
        self.clone().visit(&mut |Setting { table, key, .. }, value| {
            let origin = self.origin(table, key);
            shown.push(Shown { table, key, toml: value.toml(), json: value.json(), origin });
        });
        shown
    }

    /// Where a setting's value comes from.
    #[must_use]
    pub fn origin(&self, table: &str, key: &str) -> Origin {
        let named = self.origins.iter().find(|((t, k), _)| *t == table && *k == key);
        named.map(|(_, origin)| origin.clone()).unwrap_or_default()
    }

    /// Notes that the command line has set a value.
    pub fn set_by_command_line(&mut self, table: &'static str, key: &'static str) {
        self.origins.insert((table, key), Origin::CommandLine);
    }
}

/// Who else could write a file of this mode and owner.
pub(crate) fn distrust(mode: u32, uid: u32) -> Option<String> {
    match (mode & 0o022, uid) {
        (0, 0) => None,
        (0, uid) => Some(format!("belongs to user {uid}, not root")),
        (_, _) => Some(format!("can be written by others than root (mode {:o})", mode & 0o7777)),
    }
}

fn read_bounded(file: File) -> io::Result<String> {
    let mut text = String::new();
    file.take(FILE_LEN_MAX + 1).read_to_string(&mut text)?;
    match text.len() as u64 > FILE_LEN_MAX {
        true => Err(io::Error::other(format!("it is longer than {FILE_LEN_MAX} bytes"))),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests;
