//! A file on its way: written beside its place under another name, durable before it gets its own. Dropped before that, it is gone.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, FallocateFlags, RenameFlags, fallocate, renameat2};
use serde::{Deserialize, Serialize};

/// Why a file cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// There is one already.
    #[error("{} exists: --force replaces it", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// What stands there is no file.
    #[error("{} is no regular file", path.display())]
    NotRegular {
        /// Its path.
        path: PathBuf,
    },
    /// There is too little space for it.
    #[error("There is no space for {} MiB in {}", bytes >> 20, dir.display())]
    Space {
        /// How much it needs.
        bytes: u64,
        /// Where.
        dir: PathBuf,
    },
    /// The file system refused.
    #[error("{} cannot be written", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Which file that is, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inode {
    device: u64,
    number: u64,
}

impl Inode {
    /// The file that has this name, if there is one.
    #[must_use]
    pub fn at(path: &Path) -> Option<Inode> {
        fs::metadata(path).ok().map(|metadata| Inode::of(&metadata))
    }

    fn of(metadata: &fs::Metadata) -> Inode {
        Inode { device: metadata.dev(), number: metadata.ino() }
    }
}

/// Where a file will be, and where it is until it is complete. Absolute paths.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    pub(super) target: PathBuf,
    pub(super) partial: PathBuf,
    replace: bool,
}

impl Spot {
    pub(super) fn find(target: &Path, replace: bool) -> Result<Spot, FileError> {
        let target = free_or_replaced(target, replace)?;
        let target = std::path::absolute(&target).map_err(io_error(&target))?;
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.partial", std::process::id()));
        Ok(Spot { partial: target.with_file_name(name), target, replace })
    }
}

/// The file, incomplete.
#[derive(Debug)]
pub(super) struct Draft {
    file: File,
    spot: Spot,
}

impl Draft {
    /// Begins a file; nothing has its name before [`Draft::complete`]. Only root may read it.
    pub(super) fn begin(spot: Spot) -> Result<Draft, FileError> {
        let path = &spot.partial;
        let file = File::options().write(true).create_new(true).mode(0o600).open(path).map_err(io_error(path))?;
        Ok(Draft { file, spot })
    }

    pub(super) fn inode(&self) -> Result<Inode, FileError> {
        self.file.metadata().map(|metadata| Inode::of(&metadata)).map_err(io_error(&self.spot.partial))
    }

    /// Takes the space for what will be written. A file system that cannot do that beforehand will say so when it is full.
    pub(super) fn reserve(&self, bytes: u64) -> Result<(), FileError> {
        let len = i64::try_from(bytes).unwrap_or(i64::MAX);
        match fallocate(&self.file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, len) {
            Err(Errno::ENOSPC | Errno::EDQUOT | Errno::EFBIG) => {
                Err(FileError::Space { bytes, dir: parent(&self.spot.target).to_owned() })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        self.file.write_all(bytes).map_err(io_error(&self.spot.partial))
    }

    /// Writes over what stands there; where the next byte goes stays as it is.
    pub(super) fn put(&self, at: u64, bytes: &[u8]) -> Result<(), FileError> {
        self.file.write_all_at(bytes, at).map_err(io_error(&self.spot.partial))
    }

    /// Makes it durable, then gives it its name, durably. Its length in bytes.
    pub(super) fn complete(self) -> Result<u64, FileError> {
        let bytes = self.trim_and_sync().map_err(io_error(&self.spot.partial))?;
        self.place()?;
        sync_name(&self.spot.target).inspect_err(|_| {
            // After a loss of power it might not be there.
            drop(fs::remove_file(&self.spot.target));
        })?;
        Ok(bytes)
    }

    /// What had been reserved beyond the end is given back.
    fn trim_and_sync(&self) -> io::Result<u64> {
        let bytes = self.file.metadata()?.len();
        self.file.set_len(bytes)?;
        self.file.sync_all()?;
        Ok(bytes)
    }

    fn place(&self) -> Result<(), FileError> {
        let flags = if self.spot.replace { RenameFlags::empty() } else { RenameFlags::RENAME_NOREPLACE };
        let placed = match renameat2(AT_FDCWD, &self.spot.partial, AT_FDCWD, &self.spot.target, flags) {
            // A file system that cannot refuse by itself.
            Err(Errno::EINVAL) if !self.spot.target.exists() => fs::rename(&self.spot.partial, &self.spot.target),
            Err(Errno::EEXIST | Errno::EINVAL) => return Err(FileError::Exists { path: self.spot.target.clone() }),
            placed => placed.map_err(io::Error::from),
        };
        placed.map_err(io_error(&self.spot.target))
    }
}

impl AsFd for Draft {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        match fs::remove_file(&self.spot.partial) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.spot.partial.display(), %error, "the incomplete file is not removed");
            }
            _ => {}
        }
    }
}

/// Where the file will be: through a link to the file that is replaced.
fn free_or_replaced(target: &Path, replace: bool) -> Result<PathBuf, FileError> {
    let path = || target.to_owned();
    match fs::metadata(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(path()),
        Err(error) => Err(io_error(target)(error)),
        Ok(found) if !found.is_file() => Err(FileError::NotRegular { path: path() }),
        Ok(_) if !replace => Err(FileError::Exists { path: path() }),
        Ok(_) => target.canonicalize().map_err(io_error(target)),
    }
}

/// Makes a file's name durable.
///
/// # Errors
/// [`FileError::Io`]: after a loss of power it might not be there.
pub(crate) fn sync_name(path: &Path) -> Result<(), FileError> {
    let dir = parent(path);
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error(dir))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> FileError + use<> {
    let path = path.to_owned();
    move |source| FileError::Io { path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn begin(target: &Path, replace: bool) -> Result<Draft, FileError> {
        Draft::begin(Spot::find(target, replace)?)
    }

    #[test]
    fn it_has_its_name_when_it_is_complete_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("vm0");
        let mut draft = begin(&target, false).unwrap();
        draft.reserve(1 << 20).unwrap();
        draft.write(b"    stream").unwrap();
        draft.put(0, b"note").unwrap();
        draft.write(b" and more").unwrap();
        assert!(!target.exists());
        let inode = draft.inode().unwrap();
        assert_eq!(draft.complete().unwrap(), 19);
        assert_eq!(fs::read(&target).unwrap(), b"notestream and more");
        assert_eq!(Inode::at(&target), Some(inode));
        let metadata = fs::metadata(&target).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        assert!(metadata.blocks() * 512 < 1 << 20, "what was reserved is not given back");
        assert_eq!(names(dir.path()), ["vm0"]);
    }

    #[test]
    fn one_that_is_dropped_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        drop(begin(&dir.path().join("vm0"), false).unwrap());
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn what_exists_is_replaced_only_on_request() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("vm0"), dir.path().join("link"));
        fs::write(&target, "old").unwrap();
        symlink(&target, &link).unwrap();
        assert!(matches!(begin(&target, false), Err(FileError::Exists { .. })));
        assert!(matches!(begin(dir.path(), true), Err(FileError::NotRegular { .. })));
        assert!(matches!(begin(Path::new("/dev/null"), true), Err(FileError::NotRegular { .. })));
        let mut draft = begin(&link, true).unwrap();
        draft.write(b"new").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"old");
        draft.complete().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"new");
        assert_eq!(names(dir.path()), ["link", "vm0"]);
    }

    #[test]
    fn one_that_has_appeared_meanwhile_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("vm0");
        let draft = begin(&target, false).unwrap();
        fs::write(&target, "theirs").unwrap();
        assert!(matches!(draft.complete(), Err(FileError::Exists { .. })));
        assert_eq!((fs::read(&target).unwrap(), names(dir.path())), (b"theirs".to_vec(), vec!["vm0".to_owned()]));
    }

    #[test]
    fn too_little_space_is_told_before_anything_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let draft = begin(&dir.path().join("vm0"), false).unwrap();
        // A file system that cannot reserve says nothing.
        let reserved = draft.reserve(1 << 60);
        assert!(matches!(reserved, Ok(()) | Err(FileError::Space { .. })), "{reserved:?}");
    }
}
