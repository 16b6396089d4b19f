//! Who holds a block device open: processes, devices stacked on it, file systems. For messages, never for decisions:
//! the kernel decides by its open count, and a backend inside the kernel (blkback) shows in none of these places.

use std::fmt;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use crate::dm::DeviceNumber;

/// How many holders a message names; more would hide what it says.
const NAMED_MAX: usize = 8;

/// One holder of a block device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A process that has it open.
    Process {
        /// Its number.
        pid: u32,
        /// Its name, at most 15 bytes (proc(5), comm).
        comm: String,
    },
    /// A device stacked on it, by its name in sysfs.
    Device(String),
    /// A file system on it, by its mount point.
    Mount(String),
}

/// The holders that this host shows, at most a handful. What cannot be read is left out.
#[must_use]
pub fn holders(device: DeviceNumber) -> Vec<Holder> {
    let stacked = stacked_devices(device).into_iter();
    let mounted = mounts(device).into_iter();
    stacked.chain(mounted).chain(processes(device)).take(NAMED_MAX).collect()
}

/// The devices stacked on this one (sysfs, `holders`); a device-mapper device by the name it was given.
fn stacked_devices(device: DeviceNumber) -> Vec<Holder> {
    let Ok(entries) = fs::read_dir(format!("/sys/dev/block/{device}/holders")) else {
        return Vec::new();
    };
    entries.flatten().map(|entry| Holder::Device(given_name(&entry.path()))).collect()
}

fn given_name(holder: &Path) -> String {
    let kernel_name = holder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    fs::read_to_string(holder.join("dm/name")).map_or(kernel_name, |name| name.trim().to_owned())
}

/// Mount points by the third field of mountinfo, the device's number (proc(5)).
fn mounts(device: DeviceNumber) -> Vec<Holder> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let number = device.to_string();
    let fields = table.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let on_device = fields.filter(|fields| fields.get(2) == Some(&number.as_str()));
    on_device.filter_map(|fields| fields.get(4).map(|point| Holder::Mount((*point).to_owned()))).collect()
}

fn processes(device: DeviceNumber) -> impl Iterator<Item = Holder> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(move |&pid| has_open(pid, device)).map(|pid| Holder::Process { pid, comm: comm(pid) })
}

fn has_open(pid: u32, device: DeviceNumber) -> bool {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false; // it has ended
    };
    entries.flatten().any(|entry| is_device(&entry.path(), device))
}

fn is_device(path: &Path, device: DeviceNumber) -> bool {
    let number = libc::makedev(device.major, device.minor);
    fs::metadata(path).is_ok_and(|meta| meta.file_type().is_block_device() && meta.rdev() == number)
}

fn comm(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid, comm } => write!(f, "process {pid} ({comm})"),
            Self::Device(name) => write!(f, "device {name}"),
            Self::Mount(point) => write!(f, "the file system on {point}"),
        }
    }
}

/// The holders as one clause; a backend inside the kernel is what is left when nobody shows.
#[must_use]
pub fn describe(holders: &[Holder]) -> String {
    if holders.is_empty() {
        return "nobody that shows; a domain's block backend, perhaps".to_owned();
    }
    holders.iter().map(Holder::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_not_there_has_no_holders() {
        let nowhere = DeviceNumber { major: 147, minor: 999_999 };
        assert_eq!(holders(nowhere), Vec::new());
        assert!(describe(&[]).contains("block backend"));
    }

    #[test]
    fn holders_are_named() {
        let found = [Holder::Process { pid: 7, comm: "dd".into() }, Holder::Device("bascule-r0-0".into())];
        assert_eq!(describe(&found), "process 7 (dd), device bascule-r0-0");
    }
}
