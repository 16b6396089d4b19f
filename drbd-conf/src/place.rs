//! Where something stands in the files, and what is wrong there.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// The most mistakes that are told, and the most remarks; what is beyond is counted.
const TOLD_MAX: usize = 100;
/// The most characters of a file's own text that a message repeats.
const SHOWN_MAX: usize = 40;

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The file, as it was opened.
    pub file: Arc<Path>,
    /// The line, from 1.
    pub line: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", shown_path(&self.file), self.line)
    }
}

/// Something that is to be said about a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// Where it stands.
    pub place: Place,
    /// What is to be said, one clause.
    pub what: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// Why files are no configuration: everything that is wrong, not the first thing alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mistakes {
    /// What is wrong, in the order in which it was found. Never empty in an error.
    pub told: Vec<Remark>,
    /// How many more there are than are told.
    pub untold: usize,
}

impl std::error::Error for Mistakes {}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, mistake) in self.told.iter().enumerate() {
            let separator = if at == 0 { "" } else { "\n" };
            write!(f, "{separator}{mistake}")?;
        }
        match self.untold {
            0 => Ok(()),
            untold => write!(f, "\nand {untold} more"),
        }
    }
}

impl Mistakes {
    /// Adds one, or counts it where there are too many.
    pub(crate) fn add(&mut self, place: &Place, what: impl Into<String>) {
        match self.told.len() < TOLD_MAX {
            true => self.told.push(Remark { place: place.clone(), what: what.into() }),
            false => self.untold += 1,
        }
    }
}

/// A text of a file within a message: its beginning, on one line.
pub(crate) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_MAX).flat_map(visible).collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        shown.push_str("...");
    }
    shown
}

/// A path within a message, whole and on one line.
pub(crate) fn shown_path(path: &Path) -> String {
    path.to_string_lossy().chars().flat_map(visible).collect()
}

fn visible(c: char) -> Vec<char> {
    if c.is_control() { c.escape_default().collect() } else { vec![c] }
}
