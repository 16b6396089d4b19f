//! What lies behind a disk that DRBD does not replicate: a block device or a file of this host, and how large it is.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::sys::stat::{major, minor};
use serde::{Deserialize, Serialize};

use crate::dm::DeviceNumber;
use crate::holders;

/// Bytes of what sysfs counts as a sector of a block device.
const SECTOR_BYTES: u64 = 512;

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backing {
    /// Block device or file.
    pub kind: Kind,
    /// Its size in bytes; 0 for a drive without a medium.
    pub size_bytes: u64,
}

/// Of what kind it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A block device.
    Block,
    /// A regular file.
    File,
}

impl std::fmt::Display for Backing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            Kind::Block => "a block device",
            Kind::File => "a file",
        };
        write!(f, "{kind} of {} bytes", self.size_bytes)
    }
}

/// Looks at a path without opening what it leads to; `None` when that is neither, or not there.
///
/// # Errors
/// The system's, where it cannot be told.
pub fn look(path: &Path) -> io::Result<Option<Backing>> {
    let meta = match fs::metadata(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        meta => meta?,
    };
    let (kind, size_bytes) = match meta.file_type() {
        of if of.is_block_device() => (Kind::Block, block_size_bytes(meta.rdev())?),
        of if of.is_file() => (Kind::File, meta.len()),
        _ => return Ok(None),
    };
    Ok(Some(Backing { kind, size_bytes }))
}

/// By sysfs, since opening a drive without a medium fails.
fn block_size_bytes(device: u64) -> io::Result<u64> {
    let sectors = fs::read_to_string(format!("/sys/dev/block/{}:{}/size", major(device), minor(device)))?;
    let sectors: u64 = sectors.trim().parse().map_err(io::Error::other)?;
    Ok(sectors * SECTOR_BYTES)
}

/// The block device that a path leads to, if it leads to one.
#[must_use]
pub fn device(path: &Path) -> Option<DeviceNumber> {
    let meta = fs::metadata(path).ok().filter(|meta| meta.file_type().is_block_device())?;
    let narrow = |number: u64| u32::try_from(number).ok();
    Some(DeviceNumber { major: narrow(major(meta.rdev()))?, minor: narrow(minor(meta.rdev()))? })
}

/// Who has the block device open that a path leads to, in words, or `None`.
#[must_use]
pub fn holder(path: &Path) -> Option<String> {
    let holders = holders::holders(device(path)?);
    (!holders.is_empty()).then(|| holders::describe(&holders))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_a_size_and_what_is_no_disk_is_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("cd.iso");
        fs::write(&file, [0; 2048]).expect("written");
        std::os::unix::fs::symlink(&file, dir.path().join("link")).expect("a link");
        let expected = Some(Backing { kind: Kind::File, size_bytes: 2048 });
        for path in ["cd.iso", "link"] {
            assert_eq!(look(&dir.path().join(path)).expect("looked"), expected);
        }
        for nothing in ["absent", "cd.iso/below", "."] {
            assert_eq!(look(&dir.path().join(nothing)).expect("looked"), None, "{nothing}");
        }
        assert_eq!(look(Path::new("/dev/null")).expect("looked"), None);
        assert_eq!((device(&file), holder(&file)), (None, None));
    }
}
