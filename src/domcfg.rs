//! A domain's file, in the format of xl (docs/man/xl.cfg.5), becomes libxl's configuration as JSON.
//!
//! libxlutil parses the file; what each key means stands in [`keys`], a table in which a new key is one line. A file with a
//! key that is not in the table makes no domain: a setting that is ignored in silence is worse than one that is refused.
//! libxlutil cannot list the keys of a file, so [`scan`] finds them by the same grammar. What xl accepts with a warning is
//! accepted with a [`Warning`]. `tests/xlcfg` has files for every key, with what xl itself makes of them. What the host's
//! `xl.conf` says of all domains comes first ([`Defaults`]).

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use self::build::Builder;
use crate::xen::DomainConfig;
use crate::xen::xlu;

mod boot;
mod build;
mod defaults;
mod devices;
mod general;
mod host;
mod keys;
mod machine;
mod passthrough;
mod processors;
mod scan;
mod screens;
mod sound;
mod vnuma;
mod words;

pub use defaults::Defaults;
pub use host::{Facts, Host};

/// The longest file that is read. A domain's is a hundredth of that.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A file that makes no domain.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("Cannot read {path}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It breaks the grammar.
    #[error("Not in the format of xl's files: {source}")]
    Syntax {
        /// Where, in libxlutil's words.
        source: xlu::Error,
    },
    /// Keys or values that make no sense, all that there are.
    #[error("{file} cannot be used: {}", joined(.problems))]
    Problems {
        /// The file.
        file: String,
        /// What is wrong with it, in the order in which it stands there.
        problems: Vec<Problem>,
    },
}

/// One thing that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A key that this program does not understand.
    #[error("line {line}: {key} is not understood{}", .nearest.map(|known| format!(", did you mean {known}?")).unwrap_or_default())]
    UnknownKey {
        /// The key.
        key: String,
        /// Its line, from 1; settings of the command line follow the file's last line.
        line: usize,
        /// The known key that it resembles most, if any does.
        nearest: Option<&'static str>,
    },
    /// A value that its key cannot have, or a key that is missing.
    #[error("{}{key} {reason}", .line.map(|line| format!("line {line}: ")).unwrap_or_default())]
    Value {
        /// The key.
        key: &'static str,
        /// Its last line, from 1, where it stands in the file.
        line: Option<usize>,
        /// What is wrong, as the rest of a sentence.
        reason: String,
    },
}

/// What a file makes, and what is to be said about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The domain's configuration.
    pub config: DomainConfig,
    /// What it has that is deprecated or without effect, in the order of the table of keys.
    pub warnings: Vec<Warning>,
}

/// Something about a file that makes a domain none the less.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The key.
    pub key: String,
    /// What is odd about it, as the rest of a sentence.
    pub reason: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key, self.reason)
    }
}

/// Reads a domain's file. `overrides` are settings that replace those of the file, as `xl create FILE KEY=VALUE` takes them; a value
/// that is no number, list or quoted string is taken as a string.
///
/// # Errors
/// [`Error::Problems`] lists all that is wrong at once.
pub fn load(path: impl AsRef<Path>, overrides: &[(String, String)], host: &Host) -> Result<Loaded, Error> {
    let path = path.as_ref();
    let mut text = read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    for (key, value) in overrides {
        let _ = write!(text, "\n{key}={}\n", quoted(value));
    }
    parse(&path.display().to_string(), &text, host)
}

/// The same for a text; `file` stands in what is reported.
///
/// # Errors
/// As for [`load`].
pub fn parse(file: &str, text: &str, host: &Host) -> Result<Loaded, Error> {
    let mut builder = Builder::new(file, text, host)?;
    builder.refuse_unknown_keys();
    builder.domain();
    let (json, warnings) = builder.finish(file)?;
    Ok(Loaded { config: json.into(), warnings })
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let bytes = File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    match u64::try_from(bytes) {
        Ok(bytes) if bytes <= FILE_BYTES_MAX => Ok(text),
        _ => Err(io::ErrorKind::FileTooLarge.into()),
    }
}

/// A value of the command line as it would stand in a file.
fn quoted(value: &str) -> String {
    let number = value.starts_with(|first: char| first.is_ascii_digit())
        && value.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'x'));
    if number || value.starts_with(['"', '\'', '[']) {
        value.to_owned()
    } else {
        format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
    }
}

fn joined(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests;
