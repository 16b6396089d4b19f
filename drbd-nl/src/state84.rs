//! `STATE_INFO`: DRBD 8.4's view of one minor in one record, and the bit field inside it. DRBD 9 has no such thing.

use std::fmt;

use crate::{
    Dialect, DiskState, ReplState, Role,
    nest::{Value, ValueError, nest},
};

/// What a bit of the bitmap stands for: 4 KiB (drbd_int.h, BM_BLOCK_SHIFT), in sectors of 512 bytes.
const SECTORS_PER_BIT: u64 = 8;

/// `union drbd_state`, the state of one minor in 32 bits, lowest bits first (drbd.h).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct State84(pub u32);

impl State84 {
    /// The role of this minor: on 8.4 each minor has its own.
    pub fn role(self) -> Role {
        Role::from_number(self.bits(0, 2), Dialect::V84)
    }

    /// The role of the peer's minor.
    pub fn peer_role(self) -> Role {
        Role::from_number(self.bits(2, 2), Dialect::V84)
    }

    /// Connection and replication in one.
    pub fn connection(self) -> ReplState {
        ReplState::from_number(self.bits(4, 5), Dialect::V84)
    }

    /// Our disk.
    pub fn disk(self) -> DiskState {
        DiskState::from_number(self.bits(9, 4), Dialect::V84)
    }

    /// The peer's disk.
    pub fn peer_disk(self) -> DiskState {
        DiskState::from_number(self.bits(13, 4), Dialect::V84)
    }

    /// I/O is suspended: by the user, for lack of data, or while fencing.
    pub fn is_suspended(self) -> bool {
        self.bits(17, 1) | self.bits(21, 2) != 0
    }

    /// A resync waits: for another one, by the peer's wish, by the user's.
    pub fn is_resync_paused(self) -> bool {
        self.bits(18, 3) != 0
    }

    fn bits(self, from: u32, width: u32) -> u32 {
        (self.0 >> from) & ((1 << width) - 1)
    }
}

impl fmt::Debug for State84 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (role, peer) = (self.role(), self.peer_role());
        write!(f, "{}/{role}/{peer}/{}/{}", self.connection(), self.disk(), self.peer_disk())?;
        if self.is_suspended() {
            f.write_str("/suspended")?;
        }
        if self.is_resync_paused() {
            f.write_str("/resync-paused")?;
        }
        Ok(())
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for State84 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{self:?}"))
    }
}

impl Value for State84 {
    fn parse(bytes: &[u8], dialect: Dialect) -> Result<Self, ValueError> {
        u32::parse(bytes, dialect).map(State84)
    }

    fn emit(&self, dialect: Dialect, out: &mut Vec<u8>) -> bool {
        self.0.emit(dialect, out)
    }
}

nest! {
    /// `STATE_INFO` (8): what GET_STATUS answers on 8.4. Bits are of the bitmap, 4 KiB each.
    StateInfo {
        /// Why it was sent: 1 asked for, 2 state change, 3 and 4 before and after a helper, 5 sync progress.
        1 sib_reason: u32,
        /// The state.
        2 current_state: State84,
        /// Size, in sectors of 512 bytes.
        3 capacity: u64,
        /// Identifier of the data that the upper layers see.
        4 ed_uuid: u64,
        /// The state before the change.
        5 prev_state: State84,
        /// The state after the change.
        6 new_state: State84,
        /// Current, bitmap and two history identifiers.
        7 uuids: Vec<u64>,
        /// Flags of the metadata.
        8 disk_flags: u32,
        /// Bits in the bitmap.
        9 bits_total: u64,
        /// Bits out of sync.
        10 bits_oos: u64,
        /// Bits that the running resync had at its start; only while one runs.
        11 bits_rs_total: u64,
        /// Bits whose resync failed; only while one runs.
        12 bits_rs_failed: u64,
        /// Helper program's name.
        13 helper: String,
        /// Helper program's wait status.
        14 helper_exit_code: u32,
        /// Sectors sent to the peer since the connection was made.
        15 send_cnt: u64,
        /// Sectors received.
        16 recv_cnt: u64,
        /// Sectors read from the local disk.
        17 read_cnt: u64,
        /// Sectors written to the local disk.
        18 writ_cnt: u64,
        /// Updates of the activity log.
        19 al_writ_cnt: u64,
        /// Updates of the bitmap.
        20 bm_writ_cnt: u64,
        /// Requests from above in progress.
        21 ap_bio_cnt: u32,
        /// Requests from above that the peer has not answered.
        22 ap_pending_cnt: u32,
        /// Resync requests that the peer has not answered.
        23 rs_pending_cnt: u32,
    }
}

impl StateInfo {
    /// What differs from the peer's data, sectors of 512 bytes. The bitmap outlives a connection.
    pub fn out_of_sync_sectors(&self) -> Option<u64> {
        Some(self.bits_oos?.saturating_mul(SECTORS_PER_BIT))
    }

    /// The part of a running resync that is done, 0 to 1.
    pub fn resync_done(&self) -> Option<f64> {
        let total = self.bits_rs_total?;
        let left = self.bits_oos.unwrap_or(0).saturating_sub(self.bits_rs_failed.unwrap_or(0));
        crate::peer_device::fraction_done(total, left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_seen_live() {
        let state = State84(0x90A9);
        assert_eq!(format!("{state:?}"), "Established/Primary/Secondary/UpToDate/Inconsistent");
    }

    #[test]
    fn progress_counts_bits() {
        let info = StateInfo { bits_rs_total: Some(100), bits_oos: Some(25), ..StateInfo::default() };
        assert_eq!(info.resync_done(), Some(0.75));
        assert_eq!(StateInfo::default().resync_done(), None);
        assert_eq!(info.out_of_sync_sectors(), Some(200));
        assert_eq!(StateInfo::default().out_of_sync_sectors(), None);
    }
}
