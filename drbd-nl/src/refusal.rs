//! DRBD's verdicts. One number carries two code spaces: 101 is success, above it a request was wrong; 1 to 4 is success too,
//! 0 and below a state change was refused (drbd.h, enum drbd_ret_code and enum drbd_state_rv).

use std::fmt;

use crate::Dialect;

/// `NO_ERROR`.
const NO_ERROR: i32 = 101;
const SS_SUCCESS: i32 = 1;
const SS_NOTHING_TO_DO: i32 = 2;
const SS_CW_NO_NEED: i32 = 4;

/// The kernel did what was asked, or had nothing to do.
pub(crate) fn is_success(code: i32) -> bool {
    code == NO_ERROR || (SS_SUCCESS..=SS_CW_NO_NEED).contains(&code)
}

/// Success without a change.
pub(crate) fn is_nothing_to_do(code: i32) -> bool {
    matches!(code, SS_NOTHING_TO_DO | SS_CW_NO_NEED)
}

macro_rules! refusals {
    ($($variant:ident $number:literal $text:literal $meaning:literal,)*) => {
        /// Why DRBD refused. Display gives the text, the number, and what it means.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Refusal {
            $(#[doc = $text] $variant,)*
            /// A number that this crate does not know.
            Other(i32),
        }

        const TABLE: &[(i32, Refusal)] = &[$(($number, Refusal::$variant),)*];

        impl Refusal {
            /// The number on the wire.
            pub fn code(self) -> i32 {
                match self {
                    $(Self::$variant => $number,)*
                    Self::Other(code) => code,
                }
            }

            /// A short text.
            pub fn text(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Other(_) => "unknown code",
                }
            }

            /// What it means for the caller; empty where the text says it all.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$variant => $meaning,)*
                    Self::Other(_) => "",
                }
            }
        }
    };
}

refusals! {
    LocalAddressInUse 102 "local address in use" "another connection of this host has it",
    PeerAddressInUse 103 "peer address in use" "another connection leads to it",
    OpenDisk 104 "cannot open the backing device" "it does not exist or is in use",
    OpenMetaDisk 105 "cannot open the metadata device" "it does not exist or is in use",
    DiskNotBlockDevice 107 "backing device is no block device" "",
    MetaDiskNotBlockDevice 108 "metadata device is no block device" "",
    DiskTooSmall 111 "backing device too small" "",
    MetaDiskTooSmall 112 "metadata device too small" "",
    DiskClaimed 114 "backing device claimed by somebody else" "mounted, or part of another device",
    MetaDiskClaimed 115 "metadata device claimed by somebody else" "mounted, or part of another device",
    MetaIndexInvalid 116 "metadata slot invalid" "",
    MetaIo 118 "I/O error on the metadata" "",
    NoMetadata 119 "no valid metadata" "prepare the device once: drbdadm create-md",
    AuthAlgUnknown 120 "authentication digest unknown" "its kernel module is missing",
    AuthAlgNotDigest 121 "authentication algorithm is no keyed digest" "",
    NoMemory 122 "out of memory" "",
    DiscardImpossible 123 "cannot discard local data" "this node is Primary",
    DiskConfigured 124 "volume has a disk already" "",
    NetConfigured 125 "connection exists already" "",
    Mandatory 126 "required attribute missing or unchangeable" "",
    MinorInvalid 127 "no such minor" "",
    Interrupted 129 "interrupted by a signal" "",
    ResizeDuringResync 130 "no resize during a resync" "",
    NoPrimary 131 "one node must be Primary" "",
    ResyncAfterInvalid 132 "resync-after names no volume" "",
    ResyncAfterCycle 133 "resync-after goes in a circle" "",
    PauseAlreadySet 134 "resync is paused already" "",
    PauseAlreadyClear 135 "resync is not paused" "",
    PacketNumber 137 "unknown request" "module and program do not match",
    NoDisk 138 "volume has no disk" "",
    NotProtocolC 139 "protocol is not C" "two Primaries need protocol C",
    NoMemoryBitmap 140 "no memory for the bitmap" "",
    IntegrityAlgUnknown 141 "integrity digest unknown" "its kernel module is missing",
    IntegrityAlgNotDigest 142 "integrity algorithm is no digest" "",
    CpuMask 143 "CPU mask invalid" "",
    ChecksumAlgUnknown 144 "checksum digest unknown" "its kernel module is missing",
    ChecksumAlgNotDigest 145 "checksum algorithm is no digest" "",
    VerifyAlgUnknown 146 "verify digest unknown" "its kernel module is missing",
    VerifyAlgNotDigest 147 "verify algorithm is no digest" "",
    ChecksumResyncRunning 148 "a resync by checksums runs" "",
    VerifyRunning 149 "an online verify runs" "",
    DataNotCurrent 150 "local data is not what the upper layers saw last" "attach the disk that was there before",
    Connected 151 "not while connected" "",
    Permission 152 "permission denied" "",
    NeedPeer93 153 "the peer is too old: protocol 93 needed" "",
    FencingNeedsProtocol 154 "fencing does not go with protocol A" "",
    CongestionNeedsProtocolA 155 "congestion policy needs protocol A" "",
    PausedByDependency 156 "resync waits for another one" "",
    PausedByPeer 157 "resync is paused by the peer" "",
    ResourceUnknown 158 "no such resource" "",
    ResourceInUse 159 "resource in use" "volumes or connections are left",
    MinorConfigured 160 "minor in use" "",
    MinorOrVolumeExists 161 "minor or volume exists already" "",
    InvalidRequest 162 "invalid request" "",
    NeedPeer100 163 "the peer is too old: protocol 100 needed" "",
    NeedAllowTwoPrimaries 164 "both nodes are Primary" "demote one first",
    MetadataUnclean 165 "metadata is not clean" "replay its activity log: drbdadm apply-al",
    LayoutConnected 166 "no change of the activity log's layout while connected" "",
    LayoutTooBig 167 "activity log too big" "",
    LayoutTooSmall 168 "activity log too small" "",
    LayoutNoFit 169 "activity log does not fit" "",
    ImplicitShrink 170 "backing device is smaller than before" "",
    InvalidPeerNodeId 171 "node id of the peer invalid" "",
    TransportMissing 172 "no such transport" "its kernel module (drbd_transport_tcp) cannot be loaded",
    AddressPairInUse 173 "pair of addresses in use" "",
    AlreadyExists 174 "exists already" "",
    ProtocolTooLow 175 "the peer's protocol is too old for this" "",
    PathCollision 176 "path collides with another one" "",
    StateUnknownError 0 "unknown error of a state change" "",
    TwoPrimaries -1 "two Primaries not allowed" "the peer is Primary and the connection does not allow two",
    NoUpToDateDisk -2 "no up-to-date data reachable" "neither here nor on a connected peer",
    NoLocalDisk -4 "no local disk" "",
    NoRemoteDisk -5 "the peer has no disk" "",
    ConnectedOutdates -6 "a connected peer cannot be outdated" "",
    PrimaryNop -7 "the peer is not known to be outdated" "fencing forbids a promotion",
    ResyncRunning -8 "a resync runs" "",
    AlreadyStandAlone -9 "already StandAlone" "",
    RefusedByPeer -10 "the peer refused" "",
    Diskless -11 "volume has no disk" "",
    DeviceInUse -12 "device is open" "somebody still uses it; blkback closes a moment after its domain is gone",
    NoNetConfig -13 "no connection configured" "",
    NoVerifyAlg -14 "no verify digest configured" "set verify-alg",
    NeedConnection -15 "not connected" "",
    LowerThanOutdated -16 "disk state is lower than Outdated" "",
    NotSupported -17 "the peer does not support this" "",
    InTransientState -18 "in a transient state" "try again",
    ConcurrentStateChange -19 "another state change runs" "try again",
    OtherVolumePeerPrimary -20 "the peer is Primary on another volume" "",
    OutdateWithoutConnection -21 "cannot outdate without a connection" "",
    StateChangeInterrupted -21 "state change interrupted by a signal" "",
    PrimaryReader -22 "device is open for reading on a peer" "",
    StateChangeTimeout -23 "peers did not answer in time" "try again",
    WeaklyConnected -24 "this node does not see all peers of a Primary" "",
    NoQuorum -25 "no quorum" "too few nodes are reachable",
    AttachNoBitmap -26 "no bitmap slot for the peer" "",
    HandshakeDisconnect -27 "handshake ended by a disconnect" "",
    HandshakeRetry -28 "handshake must be repeated" "try again",
}

impl Refusal {
    /// From the number in an answer. -21 means one thing to 8.4 and another to 9.
    pub fn from_code(code: i32, dialect: Dialect) -> Refusal {
        if code == -21 && dialect == Dialect::V9 {
            return Refusal::StateChangeInterrupted; // the table's first -21 is 8.4's
        }
        TABLE.iter().find(|(number, _)| *number == code).map_or(Refusal::Other(code), |(_, refusal)| *refusal)
    }

    /// The same request can succeed in a moment without anybody doing anything.
    pub fn is_transient(self) -> bool {
        use Refusal::{ConcurrentStateChange, HandshakeRetry, InTransientState, StateChangeTimeout};
        matches!(self, ConcurrentStateChange | HandshakeRetry | InTransientState | StateChangeTimeout)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text(), self.code())?;
        match self.meaning() {
            "" => Ok(()),
            meaning => write!(f, ": {meaning}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_code_spaces_know_success() {
        let success: Vec<i32> = (-40..200).filter(|code| is_success(*code)).collect();
        assert_eq!(success, [1, 2, 3, 4, 101]);
        assert!(is_nothing_to_do(2));
        assert!(!is_nothing_to_do(101));
    }

    #[test]
    fn minus_21_depends_on_the_dialect() {
        assert_eq!(Refusal::from_code(-21, Dialect::V84), Refusal::OutdateWithoutConnection);
        assert_eq!(Refusal::from_code(-21, Dialect::V9), Refusal::StateChangeInterrupted);
    }

    #[test]
    fn every_number_comes_back() {
        for code in (-40..=0).chain(102..200) {
            assert_eq!(Refusal::from_code(code, Dialect::V84).code(), code);
            assert_eq!(Refusal::from_code(code, Dialect::V9).code(), code);
        }
    }

    #[test]
    fn display_gives_text_number_and_meaning() {
        let text = Refusal::TwoPrimaries.to_string();
        assert_eq!(text, "two Primaries not allowed (-1): the peer is Primary and the connection does not allow two");
        assert_eq!(Refusal::Other(-99).to_string(), "unknown code (-99)");
    }
}
