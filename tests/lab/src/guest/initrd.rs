//! An initramfs in the format that the kernel unpacks: cpio, "newc".

use std::io::Write;

use anyhow::Context;
use cpio::newc::{Builder, ModeFileType, trailer};

/// An initramfs that grows in memory.
#[derive(Debug, Default)]
pub struct Initrd {
    archive: Vec<u8>,
    /// The kernel takes entries of the same inode for hard links, so each gets one of its own.
    entries: u32,
}

impl Initrd {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a directory; its parent must have been added before.
    ///
    /// # Errors
    /// As [`file`](Self::file).
    pub fn directory(&mut self, path: &str) -> anyhow::Result<()> {
        self.add(Builder::new(path).mode(0o755).set_mode_file_type(ModeFileType::Directory), &[])
    }

    /// Adds a regular file.
    ///
    /// # Errors
    /// Contents of 4 GiB or more.
    pub fn file(&mut self, path: &str, mode: u32, contents: &[u8]) -> anyhow::Result<()> {
        self.add(Builder::new(path).mode(mode).set_mode_file_type(ModeFileType::Regular), contents)
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// As [`file`](Self::file).
    pub fn symlink(&mut self, path: &str, target: &str) -> anyhow::Result<()> {
        self.add(Builder::new(path).mode(0o777).set_mode_file_type(ModeFileType::Symlink), target.as_bytes())
    }

    /// Adds the node of a character device.
    ///
    /// # Errors
    /// As [`file`](Self::file).
    pub fn character_device(&mut self, path: &str, major: u32, minor: u32) -> anyhow::Result<()> {
        let builder = Builder::new(path).mode(0o600).set_mode_file_type(ModeFileType::Char);
        self.add(builder.rdev_major(major).rdev_minor(minor), &[])
    }

    /// The finished archive.
    ///
    /// # Errors
    /// None that memory can cause; the format's writer has the signature.
    pub fn finish(self) -> anyhow::Result<Vec<u8>> {
        Ok(trailer(self.archive)?)
    }

    fn add(&mut self, entry: Builder, contents: &[u8]) -> anyhow::Result<()> {
        self.entries += 1;
        let size = u32::try_from(contents.len()).context("A file of an initrd is less than 4 GiB")?;
        let mut writer = entry.ino(self.entries).nlink(1).write(&mut self.archive, size);
        writer.write_all(contents)?;
        writer.finish()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use cpio::newc::Reader;

    use super::*;

    #[test]
    fn what_was_packed_comes_out() {
        let mut initrd = Initrd::new();
        initrd.directory("dev").unwrap();
        initrd.character_device("dev/console", 5, 1).unwrap();
        initrd.file("init", 0o755, b"program").unwrap();
        initrd.symlink("poweroff", "/init").unwrap();
        let archive = initrd.finish().unwrap();
        let mut found = Vec::new();
        let mut rest = &archive[..];
        loop {
            let mut reader = Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            let mut contents = String::new();
            reader.read_to_string(&mut contents).unwrap();
            let entry = reader.entry();
            found.push((entry.name().to_owned(), entry.mode(), entry.rdev_major(), contents));
            rest = reader.finish().unwrap();
        }
        let expected = [
            ("dev", 0o040_755, 0, ""),
            ("dev/console", 0o020_600, 5, ""),
            ("init", 0o100_755, 0, "program"),
            ("poweroff", 0o120_777, 0, "/init"),
        ];
        let expected = expected.map(|(name, mode, major, text)| (name.to_owned(), mode, major, text.to_owned()));
        assert_eq!(found, expected);
    }
}
