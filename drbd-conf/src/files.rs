//! Where the reader's text comes from. Reading itself does no I/O but through [`Files`].

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// What the reader asks of a file system.
pub trait Files {
    /// The content of a file, and an error where it has more than `len_max` bytes.
    ///
    /// # Errors
    /// The file is not there, is no file, is too long, or cannot be read.
    fn read(&self, path: &Path, len_max: usize) -> io::Result<Vec<u8>>;

    /// The one path of a file that has several: each file is read once. A path that leads nowhere is given back.
    fn real(&self, path: &Path) -> PathBuf;

    /// The names in a directory, and none where it is no directory.
    fn names(&self, directory: &Path) -> Vec<String>;
}

/// This host's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path, len_max: usize) -> io::Result<Vec<u8>> {
        let file = fs::File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
        }
        let mut bytes = Vec::new();
        file.take(u64::try_from(len_max).unwrap_or(u64::MAX).saturating_add(1)).read_to_end(&mut bytes)?;
        short_enough(bytes, len_max)
    }

    fn real(&self, path: &Path) -> PathBuf {
        path.canonicalize().unwrap_or_else(|_| path.to_owned())
    }

    fn names(&self, directory: &Path) -> Vec<String> {
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }
}

/// Files that are nowhere but here, for tests and for text that came otherwise.
#[derive(Clone, Debug, Default)]
pub struct Memory(pub BTreeMap<PathBuf, Vec<u8>>);

impl Memory {
    /// One file.
    #[must_use]
    pub fn one(path: &str, text: impl Into<Vec<u8>>) -> Memory {
        Memory(BTreeMap::from([(path.into(), text.into())]))
    }
}

impl Files for Memory {
    fn read(&self, path: &Path, len_max: usize) -> io::Result<Vec<u8>> {
        let bytes = self.0.get(path).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        short_enough(bytes.clone(), len_max)
    }

    fn real(&self, path: &Path) -> PathBuf {
        path.to_owned()
    }

    fn names(&self, directory: &Path) -> Vec<String> {
        let inside = self.0.keys().filter_map(|path| path.strip_prefix(directory).ok());
        let first = inside.filter_map(|path| path.components().next());
        let mut names: Vec<String> = first.map(|name| name.as_os_str().to_string_lossy().into_owned()).collect();
        names.dedup();
        names
    }
}

fn short_enough(bytes: Vec<u8>, len_max: usize) -> io::Result<Vec<u8>> {
    match bytes.len() > len_max {
        true => Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {len_max} bytes"))),
        false => Ok(bytes),
    }
}
