//! A volume as seen over one connection: replication, resync, verify.

use std::fmt;

use crate::{
    CfgContext, Change, Command, Contents, Dialect, DiskState, Drbd, Error, Peer, ReplState, Target, drbd::Request,
    nest::nest,
};

/// Names one volume of one connection: 8.4 goes by the minor, 9 by resource, volume and node id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct PeerVolume {
    /// Resource and minor.
    pub target: Target,
    /// The volume's number in the resource.
    pub volume: u32,
    /// The peer's node id: DRBD 9 needs it.
    pub peer_node_id: Option<u32>,
}

impl fmt::Display for PeerVolume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} (minor {})", self.target.resource, self.volume, self.target.minor)
    }
}

nest! {
    /// `PEER_DEVICE_OPTS` (27, DRBD 9; on 8.4 these are disk options).
    PeerDeviceConf {
        /// Resync rate without the controller, KiB/s.
        1 resync_rate: u32,
        /// Resync controller, 0.1 s.
        2 c_plan_ahead: u32,
        /// Resync controller, 0.1 s.
        3 c_delay_target: u32,
        /// Resync controller, sectors.
        4 c_fill_target: u32,
        /// Resync controller, KiB/s.
        5 c_max_rate: u32,
        /// Resync controller, KiB/s.
        6 c_min_rate: u32,
        /// Keep a bitmap for this peer.
        7 bitmap: bool,
        /// Resync although the volume is not replicated (9.3).
        8 resync_without_replication: bool,
        /// The peer counts for quorum (9.3.3).
        9 peer_tiebreaker: bool,
    }
}

nest! {
    /// `PEER_DEVICE_INFO` (18).
    PeerDeviceInfo {
        /// `peer_repl_state`.
        1 repl_state: ReplState,
        /// `peer_disk_state`.
        2 disk_state: DiskState,
        /// Resync is paused by our user.
        3 resync_susp_user: u32,
        /// Resync is paused by the peer.
        4 resync_susp_peer: u32,
        /// Resync waits for another one.
        5 resync_susp_dependency: u32,
        /// The peer has no disk, on purpose (9).
        6 is_intentional_diskless: bool,
        /// Resync waits since too many run (9.3.3).
        7 resync_susp_max_parallel: u32,
    }
}

nest! {
    /// `PEER_DEVICE_STATISTICS` (22). Sectors are 512 bytes; from 10 on DRBD 9 only.
    PeerDeviceStatistics {
        /// Sectors received since the connection was made.
        1 received: u64,
        /// Sectors sent.
        2 sent: u64,
        /// Requests that the peer has not answered.
        3 pending: u32,
        /// Requests of the peer that we have not answered.
        4 unacked: u32,
        /// Sectors that differ.
        5 out_of_sync: u64,
        /// Sectors whose resync failed.
        6 resync_failed: u64,
        /// Identifier of the generation since which the bitmap counts.
        7 bitmap_uuid: u64,
        /// Flags of the metadata.
        9 flags: u32,
        /// Sectors that the running resync had at its start.
        10 rs_total: u64,
        /// Where the online verify started, sectors.
        11 ov_start_sector: u64,
        /// Where it stops, sectors.
        12 ov_stop_sector: u64,
        /// Where it is, sectors.
        13 ov_position: u64,
        /// What is left of it, sectors.
        14 ov_left: u64,
        /// What it skipped, sectors.
        15 ov_skipped: u64,
        /// Sectors that were found equal by digest.
        16 rs_same_csum: u64,
        /// Since the resync's start, ms.
        17 rs_dt_start_ms: u64,
        /// Time paused, ms.
        18 rs_paused_ms: u64,
        /// Length of the first progress interval, ms.
        19 rs_dt0_ms: u64,
        /// Sectors done in it.
        20 rs_db0_sectors: u64,
        /// Length of the second progress interval, ms.
        21 rs_dt1_ms: u64,
        /// Sectors done in it.
        22 rs_db1_sectors: u64,
        /// Rate that the controller wants, KiB/s.
        23 rs_c_sync_rate: u32,
        /// Flags of the peer's identifiers.
        24 uuid_flags: u64,
    }
}

impl PeerDeviceStatistics {
    /// The part of a running resync that is done, 0 to 1. DRBD 9 only; 8.4 tells it in [`crate::StateInfo`].
    pub fn resync_done(&self) -> Option<f64> {
        let left = self.out_of_sync.unwrap_or(0).saturating_sub(self.resync_failed.unwrap_or(0));
        fraction_done(self.rs_total?, left)
    }
}

/// Nothing when there was nothing to do.
pub(crate) fn fraction_done(total: u64, left: u64) -> Option<f64> {
    if total == 0 {
        return None;
    }
    // More can be out of sync than was at the start: a resync's source goes on writing.
    let done = total.saturating_sub(left);
    #[expect(clippy::cast_precision_loss, reason = "a fraction for display")]
    Some(done as f64 / total as f64)
}

nest! {
    /// `START_OV_PARMS` (9).
    StartVerifyParms {
        /// First sector of 512 bytes.
        1 ov_start_sector: u64,
        /// Sector after the last.
        2 ov_stop_sector: u64,
    }
}

nest! {
    /// `TIMEOUT_PARMS` (11).
    TimeoutParms {
        /// 0 default, 1 degraded, 2 peer outdated.
        1 timeout_type: u32,
    }
}

nest! {
    /// `FORGET_PEER_PARMS` (26, DRBD 9).
    ForgetPeerParms {
        /// Node id of the peer.
        1 forget_peer_node_id: i32,
    }
}

nest! {
    /// `INVAL_PEER_PARAMS` (33, DRBD 9).
    InvalidatePeerParms {
        /// Set the whole bitmap.
        1 reset_bitmap: bool,
    }
}

impl Drbd {
    /// Declares the peer's data bad; everything is resynced to it.
    ///
    /// # Errors
    ///
    /// [`crate::Refusal::NeedConnection`] and others.
    pub fn invalidate_peer(&mut self, volume: &PeerVolume) -> Result<Change, Error> {
        let request = self.of_peer_volume(Command::INVAL_PEER, volume)?;
        self.change(&request)
    }

    /// Starts an online verify, of the whole volume unless `parms` says otherwise.
    ///
    /// # Errors
    ///
    /// [`crate::Refusal::NoVerifyAlg`], [`crate::Refusal::NeedConnection`], [`crate::Refusal::ResyncRunning`].
    pub fn start_verify(&mut self, volume: &PeerVolume, parms: &StartVerifyParms) -> Result<Change, Error> {
        let mut request = self.of_peer_volume(Command::START_OV, volume)?;
        request.contents.start_ov_parms = Some(parms.clone());
        self.change(&request)
    }

    /// Holds a resync until [`Drbd::resume_sync`].
    ///
    /// # Errors
    ///
    /// [`crate::Refusal::PauseAlreadySet`].
    pub fn pause_sync(&mut self, volume: &PeerVolume) -> Result<Change, Error> {
        let request = self.of_peer_volume(Command::PAUSE_SYNC, volume)?;
        self.change(&request)
    }

    /// Lets a held resync go on.
    ///
    /// # Errors
    ///
    /// [`crate::Refusal::PauseAlreadyClear`], [`crate::Refusal::PausedByPeer`], [`crate::Refusal::PausedByDependency`].
    pub fn resume_sync(&mut self, volume: &PeerVolume) -> Result<Change, Error> {
        let request = self.of_peer_volume(Command::RESUME_SYNC, volume)?;
        self.change(&request)
    }

    /// Changes the options that are given; the others stay (DRBD 9; on 8.4 see [`Drbd::disk_options`]).
    ///
    /// # Errors
    ///
    /// [`Error::NotInDialect`] on 8.4.
    pub fn peer_device_options(&mut self, volume: &PeerVolume, conf: &PeerDeviceConf) -> Result<(), Error> {
        self.only_in(Dialect::V9, Command::CHG_PEER_DEVICE_OPTS)?;
        let mut request = self.of_peer_volume(Command::CHG_PEER_DEVICE_OPTS, volume)?;
        request.contents.peer_device_conf = Some(conf.clone());
        self.command(&request)
    }

    /// Frees a peer's slot in the metadata of all volumes (DRBD 9).
    ///
    /// # Errors
    ///
    /// [`Error::NotInDialect`] on 8.4.
    pub fn forget_peer(&mut self, peer: &Peer) -> Result<(), Error> {
        self.only_in(Dialect::V9, Command::FORGET_PEER)?;
        let mut request = Request::of_resource(Command::FORGET_PEER, &peer.resource)?;
        let node_id = peer.peer_node_id.and_then(|id| i32::try_from(id).ok());
        request.contents.forget_peer_parms =
            Some(ForgetPeerParms { forget_peer_node_id: node_id, ..Default::default() });
        self.command(&request)
    }

    /// Which of the three timeouts applies when a start waits for the peer: 0 default, 1 degraded, 2 peer outdated.
    ///
    /// # Errors
    ///
    /// [`crate::Refusal::MinorInvalid`] for an unknown volume.
    pub fn timeout_type(&mut self, volume: &PeerVolume) -> Result<Option<u32>, Error> {
        let request = self.of_peer_volume(Command::GET_TIMEOUT_TYPE, volume)?;
        let (_, contents) = self.ask(&request)?;
        Ok(contents.timeout_parms.and_then(|parms| parms.timeout_type))
    }

    fn of_peer_volume(&self, command: Command, volume: &PeerVolume) -> Result<Request, Error> {
        let subject = volume.to_string();
        if self.dialect() == Dialect::V84 {
            return Ok(Request { minor: volume.target.minor, ..Request::new(command, subject) });
        }
        let Some(peer_node_id) = volume.peer_node_id else {
            return Err(Error::Missing { command, subject, what: "the peer's node id" });
        };
        let context = CfgContext {
            resource_name: Some(crate::drbd::checked_name(&volume.target.resource)?.to_owned()),
            volume: Some(volume.volume),
            peer_node_id: Some(peer_node_id),
            ..CfgContext::default()
        };
        let contents = Contents { context: Some(context), ..Contents::default() };
        Ok(Request { contents, ..Request::new(command, subject) })
    }
}
