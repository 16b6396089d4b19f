//! Volumes on this host: backing device, state, counters, and their life from `new_minor` to `del_minor`.

use std::fmt;

use crate::{CfgContext, Command, Dialect, DiskState, Drbd, Error, drbd::Request, nest::nest};

/// A volume on this host: resource and minor together, since 8.4 wants the one and 9 the other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Target {
    /// The resource's name.
    pub resource: String,
    /// The minor: `/dev/drbdN`, 147:N.
    pub minor: u32,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (minor {})", self.resource, self.minor)
    }
}

nest! {
    /// `DISK_CONF` (3): a volume's backing device and its options.
    DiskConf {
        /// Path of the backing device. Fixed at `attach`.
        1 backing_dev: String,
        /// Path of the device with the metadata. Fixed at `attach`.
        2 meta_dev: String,
        /// Slot of the metadata: -1 internal, -2 flexible external, -3 flexible internal. Fixed at `attach`.
        3 meta_dev_idx: i32,
        /// Size to use, in sectors of 512 bytes, 0 for all.
        4 disk_size: u64,
        /// 8.4: limit on segments.
        5 max_bio_bvecs: u32,
        /// On an I/O error: 0 pass on, 1 call a helper, 2 detach.
        6 on_io_error: u32,
        /// 8.4: 0 no fencing, 1 resource only, 2 resource and node.
        7 fencing: u32,
        /// 8.4: resync rate, KiB/s.
        8 resync_rate: u32,
        /// Minor whose resync goes first, -1 for none.
        9 resync_after: i32,
        /// Extents of the activity log, 4 MiB each.
        10 al_extents: u32,
        /// 8.4: resync controller, 0.1 s.
        11 c_plan_ahead: u32,
        /// 8.4: resync controller, 0.1 s.
        12 c_delay_target: u32,
        /// 8.4: resync controller, sectors.
        13 c_fill_target: u32,
        /// 8.4: resync controller, KiB/s.
        14 c_max_rate: u32,
        /// 8.4: resync controller, KiB/s.
        15 c_min_rate: u32,
        /// Keep write order by barriers.
        16 disk_barrier: bool,
        /// Keep write order by flushes.
        17 disk_flushes: bool,
        /// Keep write order by waiting.
        18 disk_drain: bool,
        /// Flush metadata.
        19 md_flushes: bool,
        /// When the backing device counts as failed, 0.1 s, 0 for never.
        20 disk_timeout: u32,
        /// Where to read from.
        21 read_balancing: u32,
        /// 9: when to kick the backing device, requests.
        22 unplug_watermark: u32,
        /// Update the activity log.
        23 al_updates: bool,
        /// Zero the unaligned ends of a discard.
        24 discard_zeroes_if_aligned: bool,
        /// Discards instead of zeroes in a resync, bytes.
        25 rs_discard_granularity: u32,
        /// Do not pass WRITE_SAME on.
        26 disable_write_same: bool,
        /// 9.3: keep a bitmap.
        27 d_bitmap: bool,
    }
}

impl DiskConf {
    /// A backing device that holds its own metadata, at its end, of flexible size.
    pub fn internal(backing_dev: impl Into<String>) -> DiskConf {
        let backing_dev = backing_dev.into();
        let meta_dev = Some(backing_dev.clone());
        DiskConf {
            backing_dev: Some(backing_dev),
            meta_dev,
            meta_dev_idx: Some(META_DEV_FLEX_INTERNAL),
            ..DiskConf::default()
        }
    }
}

const META_DEV_FLEX_INTERNAL: i32 = -3; // drbd.h, DRBD_MD_INDEX_FLEX_INT

nest! {
    /// `DEVICE_CONF` (14, DRBD 9): fixed properties of a volume, given at `new_minor`.
    DeviceConf {
        /// Largest request, bytes.
        1 max_bio_size: u32,
        /// This host has no disk for it, on purpose.
        2 intentional_diskless: bool,
        /// Block size, bytes (9.1).
        3 block_size: u32,
        /// Discard granularity, bytes (9.3.3).
        4 discard_granularity: u32,
    }
}

nest! {
    /// `DEVICE_INFO` (16): the state of a volume.
    DeviceInfo {
        /// `dev_disk_state`.
        1 disk_state: DiskState,
        /// 9: no disk here, on purpose.
        2 is_intentional_diskless: bool,
        /// 9: enough nodes are there.
        3 has_quorum: bool,
        /// 9: path of the backing device, or "none".
        4 backing_dev_path: String,
        /// 9.1: somebody has it open.
        5 is_open: bool,
    }
}

nest! {
    /// `DEVICE_STATISTICS` (20). Sectors are 512 bytes.
    DeviceStatistics {
        /// `dev_size`: sectors.
        1 size: u64,
        /// `dev_read`: sectors read from the backing device.
        2 read: u64,
        /// `dev_write`: sectors written to it.
        3 write: u64,
        /// Updates of the activity log.
        4 al_writes: u64,
        /// Updates of the bitmap.
        5 bm_writes: u64,
        /// Requests from above in progress.
        6 upper_pending: u32,
        /// Requests to the backing device in progress.
        7 lower_pending: u32,
        /// Requests from above are being held.
        8 upper_blocked: bool,
        /// The backing device is congested.
        9 lower_blocked: bool,
        /// The activity log is suspended.
        10 al_suspended: bool,
        /// Identifier of the data that the upper layers see.
        11 exposed_data_uuid: u64,
        /// Identifier of the current data generation; its lowest bit says Primary.
        12 current_uuid: u64,
        /// Flags of the metadata.
        13 disk_flags: u32,
        /// Identifiers of earlier generations.
        14 history_uuids: Vec<u64>,
    }
}

nest! {
    /// `RESIZE_PARMS` (7).
    ResizeParms {
        /// New size in sectors of 512 bytes, 0 for all that the backing devices have.
        1 resize_size: u64,
        /// Without the peer.
        2 resize_force: bool,
        /// The new part needs no resync.
        3 no_resync: bool,
        /// Stripes of the activity log.
        4 al_stripes: u32,
        /// KiB of each.
        5 al_stripe_size: u32,
    }
}

nest! {
    /// `NEW_C_UUID_PARMS` (10).
    NewCurrentUuidParms {
        /// Both disks count as equal: no first resync.
        1 clear_bm: bool,
        /// 9: all peers resync from here.
        2 force_resync: bool,
    }
}

nest! {
    /// `DETACH_PARMS` (13).
    DetachParms {
        /// Do not wait for requests that hang.
        1 force_detach: bool,
        /// 9: stay without a disk on purpose.
        2 intentional_diskless_detach: bool,
    }
}

nest! {
    /// `INVALIDATE_PARMS` (25, DRBD 9).
    InvalidateParms {
        /// Peer to resync from, -1 for any.
        1 sync_from_peer_node_id: i32,
        /// Set the whole bitmap.
        2 reset_bitmap: bool,
    }
}

nest! {
    /// `SUSPEND_IO_PARAMS` (34, DRBD 9.3).
    SuspendIoParms {
        /// Freeze the file system above first.
        1 bdev_freeze: bool,
    }
}

impl Drbd {
    /// Makes volume `volume` of a resource appear as `minor`, without a disk. `conf` is for DRBD 9; 8.4 has no such properties.
    ///
    /// # Errors
    ///
    /// [`crate::Refusal::MinorConfigured`], [`crate::Refusal::MinorOrVolumeExists`], [`crate::Refusal::ResourceUnknown`].
    pub fn new_minor(&mut self, resource: &str, volume: u32, minor: u32, conf: &DeviceConf) -> Result<(), Error> {
        let mut request = Request::of_resource(Command::NEW_MINOR, resource)?;
        request.minor = minor;
        request.subject = format!("{resource}/{volume} (minor {minor})");
        let context = request.contents.context.get_or_insert_with(CfgContext::default);
        context.volume = Some(volume);
        request.contents.device_conf = (self.dialect() == Dialect::V9).then(|| conf.clone());
        self.command(&request)
    }

    /// Removes a volume that has no disk.
    ///
    /// # Errors
    ///
    /// [`crate::Refusal::MinorConfigured`] while it has.
    pub fn del_minor(&mut self, minor: u32) -> Result<(), Error> {
        self.command(&Request::of_minor(Command::DEL_MINOR, minor))
    }

    /// Gives a volume its backing device; `disk` needs the first three fields.
    ///
    /// # Errors
    ///
    /// [`crate::Refusal::NoMetadata`] when the device was never prepared by `drbdmeta create-md`; [`crate::Refusal::MetadataUnclean`] from 8.4 for each
    /// device that was attached before, until `drbdmeta apply-al` has been run on it.
    pub fn attach(&mut self, minor: u32, disk: &DiskConf) -> Result<(), Error> {
        self.with_disk(Command::ATTACH, minor, disk)
    }

    /// Changes the disk options that are given; the others stay.
    ///
    /// # Errors
    ///
    /// Refusals name the option.
    pub fn disk_options(&mut self, minor: u32, disk: &DiskConf) -> Result<(), Error> {
        self.with_disk(Command::CHG_DISK_OPTS, minor, disk)
    }

    fn with_disk(&mut self, command: Command, minor: u32, disk: &DiskConf) -> Result<(), Error> {
        let mut request = Request::of_minor(command, minor);
        request.contents.disk_conf = Some(disk.clone());
        self.command(&request)
    }

    /// Takes a volume's backing device away. `force` does not wait for requests that hang.
    ///
    /// # Errors
    ///
    /// [`crate::Refusal::NoUpToDateDisk`] when a Primary would lose its last good data.
    pub fn detach(&mut self, minor: u32, force: bool) -> Result<crate::Change, Error> {
        let mut request = Request::of_minor(Command::DETACH, minor);
        let parms = DetachParms { force_detach: force.then_some(true), ..DetachParms::default() };
        request.contents.detach_parms = Some(parms);
        self.change(&request)
    }

    /// Changes a volume's size on both nodes, after their backing devices have grown.
    ///
    /// # Errors
    ///
    /// [`crate::Refusal::ResizeDuringResync`], [`crate::Refusal::NoPrimary`] and others.
    pub fn resize(&mut self, minor: u32, parms: &ResizeParms) -> Result<(), Error> {
        let mut request = Request::of_minor(Command::RESIZE, minor);
        request.contents.resize_parms = Some(parms.clone());
        self.command(&request)
    }

    /// Starts a new data generation. With `clear_bitmap`, and only right after both disks were prepared, they count as equal
    /// and the first resync is left out.
    ///
    /// # Errors
    ///
    /// [`crate::Refusal::Connected`] when the connection is not in a state for that.
    pub fn new_current_uuid(&mut self, minor: u32, clear_bitmap: bool) -> Result<(), Error> {
        let mut request = Request::of_minor(Command::NEW_C_UUID, minor);
        let parms = NewCurrentUuidParms { clear_bm: clear_bitmap.then_some(true), ..NewCurrentUuidParms::default() };
        request.contents.new_c_uuid_parms = Some(parms);
        self.command(&request)
    }

    /// Declares the local data bad; everything is resynced from the peer.
    ///
    /// # Errors
    ///
    /// Refused on a Primary without a good peer.
    pub fn invalidate(&mut self, minor: u32) -> Result<crate::Change, Error> {
        self.change(&Request::of_minor(Command::INVALIDATE, minor))
    }

    /// Marks the local data as old, as a peer's fence-peer handler does.
    ///
    /// # Errors
    ///
    /// Refused while connected or Primary.
    pub fn outdate(&mut self, minor: u32) -> Result<crate::Change, Error> {
        self.change(&Request::of_minor(Command::OUTDATE, minor))
    }

    /// Holds all requests from above until [`Drbd::resume_io`].
    ///
    /// # Errors
    ///
    /// [`crate::Refusal::MinorInvalid`] for an unknown minor.
    pub fn suspend_io(&mut self, minor: u32) -> Result<crate::Change, Error> {
        self.change(&Request::of_minor(Command::SUSPEND_IO, minor))
    }

    /// Lets held requests go on.
    ///
    /// # Errors
    ///
    /// [`crate::Refusal::MinorInvalid`] for an unknown minor.
    pub fn resume_io(&mut self, minor: u32) -> Result<crate::Change, Error> {
        self.change(&Request::of_minor(Command::RESUME_IO, minor))
    }
}
