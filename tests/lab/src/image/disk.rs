//! The disk that DRBD replicates, and that of a node's own state. The first has one partition per volume, each beginning with an empty ext4 file system for a guest.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use super::layer::RESOURCES;
use crate::command::run;

const MIB: u64 = 1 << 20;
const SECTOR: u64 = 512;

/// Where the first partition begins.
const START_MIB: u64 = 1;

/// DRBD's meta data stand at the end of the backing device (`meta-disk internal`); for volumes of this size they need less.
const META_DATA_MIB: u64 = 1;

/// Writes the disk of one node, a sparse file; that of the other is a copy, so that DRBD has nothing to synchronise.
pub(super) fn create(path: &Path) -> anyhow::Result<()> {
    let sizes: Vec<u64> =
        RESOURCES.iter().flat_map(|resource| resource.volumes.iter().map(|volume| volume.size_mib)).collect();
    let whole: u64 = START_MIB + sizes.iter().map(|size| size + META_DATA_MIB).sum::<u64>();
    fs::remove_file(path).ok();
    let disk = File::create(path)?;
    disk.set_len(whole * MIB)?;
    disk.write_all_at(&partition_table(&sizes), 0)?;
    let mut start = START_MIB;
    for size in sizes {
        make_file_system(path, start, size)?;
        start += size + META_DATA_MIB;
    }
    Ok(())
}

/// Size of the disk that keeps what a node must not forget, in MiB.
const STATE_MIB: u64 = 16;

/// Writes the disk of a node's own state, one file system: what lies there outlives the loss of power.
pub(super) fn create_state(path: &Path) -> anyhow::Result<()> {
    fs::remove_file(path).ok();
    File::create(path)?.set_len(STATE_MIB * MIB)?;
    make_file_system(path, 0, STATE_MIB)
}

/// The file system is a little smaller than the volume, and ends before the meta data on any of them.
fn make_file_system(disk: &Path, start_mib: u64, size_mib: u64) -> anyhow::Result<()> {
    run(Command::new("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-L", "lab-data", "-E"])
        .arg(format!("offset={},nodiscard", start_mib * MIB))
        .arg(disk)
        .arg(format!("{size_mib}M")))?;
    Ok(())
}

/// A master boot record with one primary partition per volume; there is room for four.
fn partition_table(sizes_mib: &[u64]) -> [u8; 512] {
    const TABLE: usize = 446;
    const ENTRY: usize = 16;
    const LINUX: u8 = 0x83;
    let mut record = [0; 512];
    let mut start = START_MIB;
    for (entry, size) in record[TABLE..TABLE + 4 * ENTRY].chunks_exact_mut(ENTRY).zip(sizes_mib) {
        let length = size + META_DATA_MIB;
        entry[4] = LINUX;
        entry[8..12].copy_from_slice(&sectors(start).to_le_bytes());
        entry[12..16].copy_from_slice(&sectors(length).to_le_bytes());
        start += length;
    }
    record[510..].copy_from_slice(&[0x55, 0xaa]);
    record
}

fn sectors(mib: u64) -> u32 {
    u32::try_from(mib * MIB / SECTOR).expect("the lab's disks are smaller than 2 TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_follow_each_other() {
        let table = partition_table(&[128, 64]);
        assert_eq!(table[446 + 8..446 + 12], 2048_u32.to_le_bytes());
        assert_eq!(table[462 + 8..462 + 12], (2048 + 129 * 2048_u32).to_le_bytes());
        assert_eq!(table[462 + 12..462 + 16], (65 * 2048_u32).to_le_bytes());
        assert_eq!(table[478..510], [0; 32]);
    }
}
