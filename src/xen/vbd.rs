//! The block backends of a domain (blkback): what xenstore says of them, what they count, and whether they are at rest.
//!
//! Sources: xen/include/public/io/blkif.h (xenstore nodes), Documentation/ABI/testing/sysfs-driver-xen-blkback and
//! drivers/block/xen-blkback (statistics, the thread's name).

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::xenstore::{self, Xenstore};
use crate::dm::DeviceNumber;
use crate::ids::DomId;

/// Where this host's block backends stand in xenstore, relative to its own domain.
const BACKENDS: &str = "backend/vbd";
/// Between the two samples that must agree. A request that a domain has put on its ring before it was suspended has raised
/// its interrupt by then, and wakes the backend's thread at once.
const SAMPLE_GAP: Duration = Duration::from_millis(3);

/// One block backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockBackend {
    /// The domain that it serves.
    pub domid: DomId,
    /// The device's number in that domain, such as 51712 for xvda.
    pub devid: u32,
    /// The device's name in that domain, such as `xvda`.
    pub vdev: String,
    /// What was asked for: for a hotplug program, its target (`params`).
    pub target: String,
    /// The hotplug program, an absolute path; empty when there is none.
    pub script: String,
    /// The device that it reads and writes, once the hotplug program has said it.
    pub device: Option<DeviceNumber>,
    /// Where it stands (xenbus.h; 4: connected, 5: closing, 6: closed); 0 when unknown.
    pub state: u32,
}

/// What a backend has processed since it was connected (sysfs, `statistics`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Requests to read.
    pub read_requests: u64,
    /// Requests to write.
    pub write_requests: u64,
    /// Requests to flush the disk's cache.
    pub flush_requests: u64,
    /// Requests to discard sectors.
    pub discard_requests: u64,
    /// Sectors read, of 512 bytes.
    pub read_sectors: u64,
    /// Sectors written, of 512 bytes.
    pub written_sectors: u64,
}

/// Why a domain's backends cannot be looked at, or are not at rest.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Xenstore failed.
    #[error("Block backends of domain {domid} cannot be read")]
    Xenstore {
        /// The domain.
        domid: DomId,
        /// Why.
        #[source]
        source: xenstore::Error,
    },
    /// A backend went on working until the deadline.
    #[error("Block backend {vdev} of domain {domid} is still busy ({in_flight} requests under way)")]
    Busy {
        /// The domain.
        domid: DomId,
        /// The device's name in the domain.
        vdev: String,
        /// Requests that its device has not ended.
        in_flight: u64,
    },
}

/// The block backends of a domain on this host, by device number.
///
/// # Errors
/// [`Error::Xenstore`].
pub fn backends(xenstore: &Xenstore, domid: DomId) -> Result<Vec<BlockBackend>, Error> {
    read_backends(xenstore, domid).map_err(|source| Error::Xenstore { domid, source })
}

/// The block backends of all domains of this host.
///
/// # Errors
/// [`Error::Xenstore`].
pub fn all_backends(xenstore: &Xenstore) -> Result<Vec<BlockBackend>, Error> {
    let read = |source| Error::Xenstore { domid: DomId(0), source };
    let names = xenstore.directory(BACKENDS).map_err(read)?;
    let domids = names.iter().filter_map(|name| name.parse().ok().map(DomId));
    let mut all = Vec::new();
    for domid in domids {
        all.extend(backends(xenstore, domid)?);
    }
    Ok(all)
}

fn read_backends(xenstore: &Xenstore, domid: DomId) -> Result<Vec<BlockBackend>, xenstore::Error> {
    let names = xenstore.directory(&format!("{BACKENDS}/{domid}"))?;
    let mut devids: Vec<u32> = names.iter().filter_map(|name| name.parse().ok()).collect();
    devids.sort_unstable();
    devids.into_iter().map(|devid| read_backend(xenstore, domid, devid)).collect()
}

fn read_backend(xenstore: &Xenstore, domid: DomId, devid: u32) -> Result<BlockBackend, xenstore::Error> {
    let read = |node: &str| {
        let value = xenstore.read(&format!("{BACKENDS}/{domid}/{devid}/{node}"))?;
        Ok(value.unwrap_or_default())
    };
    Ok(BlockBackend {
        domid,
        devid,
        vdev: read("dev")?,
        target: read("params")?,
        script: read("script")?,
        device: DeviceNumber::from_hex(&read("physical-device")?),
        state: read("state")?.parse().unwrap_or(0),
    })
}

/// Waits until all of these backends are at rest: nothing counted and nothing under way in two samples in a row, and their
/// threads asleep. That they stay so is up to the caller: the domain must be suspended.
///
/// # Errors
/// [`Error::Busy`] at `deadline`, for the first that is not.
pub fn wait_idle(backends: &[BlockBackend], deadline: Instant) -> Result<(), Error> {
    let threads = threads(backends);
    let mut before = sample(backends, &threads);
    loop {
        thread::sleep(SAMPLE_GAP);
        let now = sample(backends, &threads);
        if now.is_quiet() && now == before {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(busy(backends, &before, &now));
        }
        before = now;
    }
}

/// One look at a set of backends.
#[derive(Debug, PartialEq, Eq)]
struct Sample {
    counted: Vec<Option<Statistics>>,
    in_flight: Vec<u64>,
    asleep: bool,
}

impl Sample {
    fn is_quiet(&self) -> bool {
        self.asleep && self.in_flight.iter().all(|&requests| requests == 0)
    }
}

fn sample(backends: &[BlockBackend], threads: &[PathBuf]) -> Sample {
    Sample {
        counted: backends.iter().map(BlockBackend::statistics).collect(),
        in_flight: backends.iter().map(BlockBackend::in_flight).collect(),
        asleep: threads.iter().all(|stat| is_asleep(stat)),
    }
}

/// The backend that keeps the others waiting; a thread that is awake speaks for the first.
fn busy(backends: &[BlockBackend], before: &Sample, now: &Sample) -> Error {
    let moved = |&i: &usize| now.in_flight[i] > 0 || now.counted[i] != before.counted[i];
    let culprit = (0..backends.len()).find(moved).unwrap_or_default();
    let backend = backends.get(culprit);
    Error::Busy {
        domid: backend.map_or(DomId(0), |backend| backend.domid),
        vdev: backend.map_or_else(String::new, |backend| backend.vdev.clone()),
        in_flight: now.in_flight.get(culprit).copied().unwrap_or_default(),
    }
}

impl BlockBackend {
    /// What it has processed, or `None` when it is not (or no more) connected.
    #[must_use]
    pub fn statistics(&self) -> Option<Statistics> {
        let folder = format!("/sys/bus/xen-backend/devices/vbd-{}-{}/statistics", self.domid, self.devid);
        let read = |name: &str| fs::read_to_string(format!("{folder}/{name}")).ok()?.trim().parse().ok();
        Some(Statistics {
            read_requests: read("rd_req")?,
            write_requests: read("wr_req")?,
            flush_requests: read("f_req")?,
            discard_requests: read("ds_req")?,
            read_sectors: read("rd_sect")?,
            written_sectors: read("wr_sect")?,
        })
    }

    /// Requests that its device has been given and has not ended.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.device.map_or(0, DeviceNumber::in_flight)
    }

    /// Its node in xenstore, relative to this host's domain.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{BACKENDS}/{}/{}", self.domid, self.devid)
    }
}

/// The `stat` files of the backends' kernel threads, one for each ring (drivers/block/xen-blkback/xenbus.c, `blkback_name`).
fn threads(backends: &[BlockBackend]) -> Vec<PathBuf> {
    let serves_one = |comm: &str| backends.iter().any(|backend| serves(comm, backend.domid, &backend.vdev));
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let folders = entries.map(|entry| entry.path());
    let ours = folders.filter(|folder| {
        let comm = fs::read_to_string(folder.join("comm"));
        comm.is_ok_and(|comm| serves_one(comm.trim_end()))
    });
    ours.map(|folder| folder.join("stat")).collect()
}

/// Whether a thread's name is that of a backend: `DOMID.VDEV-RING`, with `blkback.` before it on older kernels.
fn serves(comm: &str, domid: DomId, vdev: &str) -> bool {
    let name = comm.strip_prefix("blkback.").unwrap_or(comm);
    let device = vdev.strip_prefix("/dev/").unwrap_or(vdev);
    let ring = name.strip_prefix(&format!("{domid}.{device}-"));
    ring.is_some_and(|ring| !ring.is_empty() && ring.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether a thread sleeps until it is woken (proc(5), stat: the field behind the name). One that has ended does.
fn is_asleep(stat: &Path) -> bool {
    let Ok(text) = fs::read_to_string(stat) else {
        return true;
    };
    let state = text.rsplit_once(") ").and_then(|(_, fields)| fields.chars().next());
    matches!(state, Some('S' | 'I'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_s_thread_is_known_by_its_name() {
        assert!(serves("3.xvda-0", DomId(3), "xvda"));
        assert!(serves("blkback.3.xvda-1", DomId(3), "xvda"));
        assert!(!serves("13.xvda-0", DomId(3), "xvda"));
        assert!(!serves("3.xvdab-0", DomId(3), "xvda"));
        assert!(!serves("3.xvda-", DomId(3), "xvda"));
    }

    #[test]
    fn this_thread_is_awake() {
        assert!(!is_asleep(Path::new("/proc/thread-self/stat")));
        assert!(is_asleep(Path::new("/proc/0/stat")));
    }

    #[test]
    fn a_backend_that_is_not_there_is_at_rest() {
        let backend = BlockBackend {
            domid: DomId(32_000),
            devid: 51712,
            vdev: "xvda".into(),
            target: "r0".into(),
            script: String::new(),
            device: Some(DeviceNumber { major: 147, minor: 999_999 }),
            state: 0,
        };
        assert_eq!(backend.path(), "backend/vbd/32000/51712");
        assert!(wait_idle(&[backend], Instant::now()).is_ok());
    }
}
