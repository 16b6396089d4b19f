//! A disk as its user reads and writes it, past all caches, in blocks of 4 KiB.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

const BLOCK: u64 = 4096;

/// Sectors of 512 bytes in a block.
pub(crate) const BLOCK_SECTORS: u64 = BLOCK / 512;

/// One block, aligned as O_DIRECT wants it.
#[repr(align(4096))]
struct Block([u8; 4096]);

pub(crate) fn open(path: impl AsRef<Path>) -> File {
    File::options().read(true).write(true).custom_flags(libc::O_DIRECT | libc::O_SYNC).open(path).unwrap()
}

/// Fills a block with a byte.
pub(crate) fn write(file: &File, block: u64, byte: u8) -> io::Result<()> {
    file.write_all_at(&Block([byte; 4096]).0, block * BLOCK)
}

/// The byte with which a block is filled.
pub(crate) fn read(file: &File, number: u64) -> u8 {
    let mut block = Block([0; 4096]);
    file.read_exact_at(&mut block.0, number * BLOCK).unwrap();
    assert!(block.0.iter().all(|byte| *byte == block.0[0]));
    block.0[0]
}
