//! Roles and states, as DRBD's words. The same state can have another number in each dialect, so numbers exist only on the wire.

use std::fmt;

use crate::{
    Dialect,
    nest::{Value, ValueError},
};

macro_rules! number {
    (_) => {
        None
    };
    ($number:literal) => {
        Some($number)
    };
}

/// An enum whose variants have a number in each dialect (`_` for none) and a word; numbers without a variant survive in `Other`.
macro_rules! numbered {
    (
        $(#[$meta:meta])*
        $name:ident {
            $( $(#[$variant_meta:meta])* $variant:ident [$v84:tt, $v9:tt] $word:literal, )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $( $(#[$variant_meta])* $variant, )*
            /// A number that this crate does not know.
            Other(u32),
        }

        impl $name {
            /// From the number on the wire.
            pub fn from_number(number: u32, dialect: Dialect) -> Self {
                let known = [$((Self::$variant, number!($v84), number!($v9)),)*];
                let found = known.iter().find(|(_, v84, v9)| match dialect {
                    Dialect::V84 => *v84 == Some(number),
                    Dialect::V9 => *v9 == Some(number),
                });
                found.map_or(Self::Other(number), |(state, ..)| *state)
            }

            /// The number on the wire; nothing when the dialect has no such state.
            pub fn number(self, dialect: Dialect) -> Option<u32> {
                match (self, dialect) {
                    $((Self::$variant, Dialect::V84) => number!($v84),)*
                    $((Self::$variant, Dialect::V9) => number!($v9),)*
                    (Self::Other(number), _) => Some(number),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$variant => f.pad($word),)*
                    Self::Other(number) => f.pad(&format!("unknown({number})")),
                }
            }
        }

        impl Value for $name {
            fn parse(bytes: &[u8], dialect: Dialect) -> Result<Self, ValueError> {
                Ok(Self::from_number(u32::parse(bytes, dialect)?, dialect))
            }

            fn emit(&self, dialect: Dialect, out: &mut Vec<u8>) -> bool {
                self.number(dialect).is_some_and(|number| number.emit(dialect, out))
            }
        }

        #[cfg(feature = "serde")]
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        #[cfg(feature = "serde")]
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let word = <String as serde::Deserialize>::deserialize(deserializer)?;
                let known = [$(($word, Self::$variant),)*].into_iter().find(|(known, _)| *known == word);
                let number = || word.strip_prefix("unknown(")?.strip_suffix(')')?.parse().ok();
                let state = known.map(|(_, state)| state).or_else(|| number().map(Self::Other));
                state.ok_or_else(|| serde::de::Error::custom(format_args!("{word} is no {}", stringify!($name))))
            }
        }
    };
}

numbered! {
    /// Who may write (drbd.h, enum drbd_role).
    Role {
        /// Of a peer that is not connected.
        Unknown [0, 0] "Unknown",
        /// May be opened for writing.
        Primary [1, 1] "Primary",
        /// Follows the Primary.
        Secondary [2, 2] "Secondary",
    }
}

numbered! {
    /// How good the data of one node is (drbd.h, enum drbd_disk_state). From Failed on, 8.4 and 9 number differently.
    DiskState {
        /// No backing device.
        Diskless [0, 0] "Diskless",
        /// Reading metadata.
        Attaching [1, 1] "Attaching",
        /// Being detached (9 only).
        Detaching [_, 2] "Detaching",
        /// Detaching after an I/O error.
        Failed [2, 3] "Failed",
        /// Attached while connected, before both have compared their data.
        Negotiating [3, 4] "Negotiating",
        /// Not usable before a resync ends.
        Inconsistent [4, 5] "Inconsistent",
        /// Usable, but known to be old.
        Outdated [5, 6] "Outdated",
        /// Of a peer that is not connected.
        DUnknown [6, 7] "DUnknown",
        /// Usable; whether it is up to date is open until a connection is made.
        Consistent [7, 8] "Consistent",
        /// Usable and current.
        UpToDate [8, 9] "UpToDate",
    }
}

impl DiskState {
    /// Usable and current.
    pub fn is_up_to_date(self) -> bool {
        self == DiskState::UpToDate
    }
}

numbered! {
    /// The state of a connection, `CONNECTION_INFO`'s (drbd.h, enum drbd_conns and enum drbd_conn_state).
    ConnectionState {
        /// Not even trying. 8.4 has forgotten the addresses then.
        StandAlone [0, 0] "StandAlone",
        /// Going to StandAlone.
        Disconnecting [1, 1] "Disconnecting",
        /// Before the next attempt.
        Unconnected [2, 2] "Unconnected",
        /// Lost by timeout.
        Timeout [3, 3] "Timeout",
        /// Lost by a broken socket.
        BrokenPipe [4, 4] "BrokenPipe",
        /// Lost by another network error.
        NetworkFailure [5, 5] "NetworkFailure",
        /// Lost because the peer spoke nonsense.
        ProtocolError [6, 6] "ProtocolError",
        /// The peer is closing.
        TearDown [7, 7] "TearDown",
        /// Waiting for the peer, 8.4's word.
        WfConnection [8, _] "WFConnection",
        /// Waiting for the peer, 9's word.
        Connecting [_, 8] "Connecting",
        /// Up. For 8.4 this is number 9, `C_WF_REPORT_PARAMS`: beyond it each volume counts for itself.
        Connected [9, 9] "Connected",
    }
}

impl ConnectionState {
    /// The peer is there.
    pub fn is_connected(self) -> bool {
        self == ConnectionState::Connected
    }

    /// Waiting for the peer, in either dialect's word.
    pub fn is_connecting(self) -> bool {
        matches!(self, ConnectionState::WfConnection | ConnectionState::Connecting)
    }
}

numbered! {
    /// What replication does for one volume and one peer, `PEER_DEVICE_INFO`'s (drbd.h, enum drbd_conns, enum drbd_repl_state).
    /// 8.4 has one number for both connection and replication; below Off its variants occur in `STATE_INFO` only.
    ReplState {
        /// Not connected. For 8.4 this is number 9, `C_WF_REPORT_PARAMS`: the kernel reports no lower one for a peer device.
        Off [9, 9] "Off",
        /// Not connected, see [`ConnectionState`] (8.4).
        StandAlone [0, _] "StandAlone",
        /// Not connected (8.4).
        Disconnecting [1, _] "Disconnecting",
        /// Not connected (8.4).
        Unconnected [2, _] "Unconnected",
        /// Not connected (8.4).
        Timeout [3, _] "Timeout",
        /// Not connected (8.4).
        BrokenPipe [4, _] "BrokenPipe",
        /// Not connected (8.4).
        NetworkFailure [5, _] "NetworkFailure",
        /// Not connected (8.4).
        ProtocolError [6, _] "ProtocolError",
        /// Not connected (8.4).
        TearDown [7, _] "TearDown",
        /// Not connected (8.4).
        WfConnection [8, _] "WFConnection",
        /// Every write goes to the peer; 8.4's word is Connected.
        Established [10, 10] "Established",
        /// A full resync to the peer is being prepared.
        StartingSyncS [11, 11] "StartingSyncS",
        /// A full resync from the peer is being prepared.
        StartingSyncT [12, 12] "StartingSyncT",
        /// Bitmaps are being exchanged, we will be the source.
        WfBitMapS [13, 13] "WFBitMapS",
        /// Bitmaps are being exchanged, we will be the target.
        WfBitMapT [14, 14] "WFBitMapT",
        /// Waiting for the source's new identifier.
        WfSyncUuid [15, 15] "WFSyncUUID",
        /// Resync runs from here.
        SyncSource [16, 16] "SyncSource",
        /// Resync runs to here.
        SyncTarget [17, 17] "SyncTarget",
        /// Online verify, we ask.
        VerifyS [18, 18] "VerifyS",
        /// Online verify, the peer asks.
        VerifyT [19, 19] "VerifyT",
        /// Resync from here, paused.
        PausedSyncS [20, 20] "PausedSyncS",
        /// Resync to here, paused.
        PausedSyncT [21, 21] "PausedSyncT",
        /// Not replicating for the moment: the link is congested, the peer falls behind.
        Ahead [22, 22] "Ahead",
        /// We fall behind.
        Behind [23, 23] "Behind",
    }
}

impl ReplState {
    /// Every write goes to the peer and nothing else is under way.
    pub fn is_established(self) -> bool {
        self == ReplState::Established
    }

    /// A resync runs, is being prepared, or is paused.
    pub fn is_resync(self) -> bool {
        use ReplState::{
            PausedSyncS, PausedSyncT, StartingSyncS, StartingSyncT, SyncSource, SyncTarget, WfBitMapS, WfBitMapT,
            WfSyncUuid,
        };
        matches!(
            self,
            StartingSyncS
                | StartingSyncT
                | WfBitMapS
                | WfBitMapT
                | WfSyncUuid
                | SyncSource
                | SyncTarget
                | PausedSyncS
                | PausedSyncT
        )
    }

    /// An online verify runs.
    pub fn is_verify(self) -> bool {
        matches!(self, ReplState::VerifyS | ReplState::VerifyT)
    }
}

numbered! {
    /// When a write counts as done (drbd.h, DRBD_PROT_A to C).
    Protocol {
        /// Once it is on the local disk and in the send buffer.
        A [1, 1] "A",
        /// Once it has reached the peer's memory.
        B [2, 2] "B",
        /// Once it has reached the peer's disk.
        C [3, 3] "C",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn up_to_date_is_8_in_8_4_and_9_in_9() {
        assert_eq!(DiskState::from_number(8, Dialect::V84), DiskState::UpToDate);
        assert_eq!(DiskState::from_number(8, Dialect::V9), DiskState::Consistent);
        assert_eq!(DiskState::from_number(9, Dialect::V9), DiskState::UpToDate);
        assert_eq!(DiskState::from_number(9, Dialect::V84), DiskState::Other(9));
        assert_eq!(DiskState::from_number(2, Dialect::V84), DiskState::Failed);
        assert_eq!(DiskState::from_number(2, Dialect::V9), DiskState::Detaching);
    }

    #[test]
    fn every_number_comes_back_in_both_dialects() {
        for dialect in [Dialect::V84, Dialect::V9] {
            for number in (0..40).chain([u32::MAX]) {
                assert_eq!(Role::from_number(number, dialect).number(dialect), Some(number));
                assert_eq!(DiskState::from_number(number, dialect).number(dialect), Some(number));
                assert_eq!(ConnectionState::from_number(number, dialect).number(dialect), Some(number));
                assert_eq!(ReplState::from_number(number, dialect).number(dialect), Some(number));
            }
        }
    }

    #[test]
    fn nine_is_a_live_connection_in_both() {
        for dialect in [Dialect::V84, Dialect::V9] {
            assert!(ConnectionState::from_number(9, dialect).is_connected());
            assert!(ConnectionState::from_number(8, dialect).is_connecting());
            assert!(ReplState::from_number(10, dialect).is_established());
        }
    }

    #[test]
    fn a_state_that_the_dialect_lacks_is_not_sent() {
        assert_eq!(DiskState::Detaching.number(Dialect::V84), None);
    }

    #[test]
    fn words_obey_a_width() {
        assert_eq!(format!("[{:<10}]", Role::Primary), "[Primary   ]");
        assert_eq!(DiskState::Other(77).to_string(), "unknown(77)");
    }
}
