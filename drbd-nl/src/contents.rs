//! The top-level attributes of a message, each a nest, and the nests that name the object and carry the answer.

use std::fmt;

use crate::{
    Address, ConnectParms, ConnectionInfo, ConnectionStatistics, DetachParms, DeviceConf, DeviceInfo, DeviceStatistics,
    Dialect, DisconnectParms, DiskConf, ForgetPeerParms, InvalidateParms, InvalidatePeerParms, NetConf,
    NewCurrentUuidParms, PathInfo, PathParms, PeerDeviceConf, PeerDeviceInfo, PeerDeviceStatistics, RenameResourceInfo,
    RenameResourceParms, ResizeParms, ResourceInfo, ResourceOpts, ResourceStatistics, SetRoleParms, StartVerifyParms,
    StateInfo, SuspendIoParms, TimeoutParms,
    nest::{self, Value, ValueError, nest},
    wire::{Attr, RawAttr},
};

nest! {
    /// Everything that a message can carry.
    Contents {
        /// DRBD's lines about an answer.
        1 reply: CfgReply,
        /// Which object.
        2 context: CfgContext,
        /// Options of a volume.
        3 disk_conf: DiskConf,
        /// Options of a resource.
        4 resource_opts: ResourceOpts,
        /// Options of a connection.
        5 net_conf: NetConf,
        /// How to promote.
        6 set_role_parms: SetRoleParms,
        /// How to resize.
        7 resize_parms: ResizeParms,
        /// 8.4: state of one minor.
        8 state_info: StateInfo,
        /// Range of an online verify.
        9 start_ov_parms: StartVerifyParms,
        /// How to start a data generation.
        10 new_c_uuid_parms: NewCurrentUuidParms,
        /// Answer to GET_TIMEOUT_TYPE.
        11 timeout_parms: TimeoutParms,
        /// How to disconnect.
        12 disconnect_parms: DisconnectParms,
        /// How to detach.
        13 detach_parms: DetachParms,
        /// 9: fixed properties of a volume.
        14 device_conf: DeviceConf,
        /// State of a resource.
        15 resource_info: ResourceInfo,
        /// State of a volume.
        16 device_info: DeviceInfo,
        /// State of a connection.
        17 connection_info: ConnectionInfo,
        /// State of a volume of a connection.
        18 peer_device_info: PeerDeviceInfo,
        /// Counters of a resource.
        19 resource_statistics: ResourceStatistics,
        /// Counters of a volume.
        20 device_statistics: DeviceStatistics,
        /// Counters of a connection.
        21 connection_statistics: ConnectionStatistics,
        /// Counters of a volume of a connection.
        22 peer_device_statistics: PeerDeviceStatistics,
        /// What a notification is about.
        23 notification: NotificationHeader,
        /// Which helper program.
        24 helper: HelperInfo,
        /// 9: how to invalidate.
        25 invalidate_parms: InvalidateParms,
        /// 9: which peer to forget.
        26 forget_peer_parms: ForgetPeerParms,
        /// 9: options of a volume of a connection.
        27 peer_device_conf: PeerDeviceConf,
        /// 9: addresses of a path.
        28 path_parms: PathParms,
        /// 9: how to connect.
        29 connect_parms: ConnectParms,
        /// 9: state of a path.
        30 path_info: PathInfo,
        /// 9: the new name.
        31 rename_resource_parms: RenameResourceParms,
        /// 9: the new name, in a notification.
        32 rename_resource_info: RenameResourceInfo,
        /// 9: how to invalidate the peer.
        33 invalidate_peer_parms: InvalidatePeerParms,
        /// 9: how to suspend I/O.
        34 suspend_io_parms: SuspendIoParms,
    }
}

nest! {
    /// `CFG_CONTEXT` (2): which object a message is about; its minor stands in the header.
    CfgContext {
        /// `ctx_volume`: number of the volume in its resource.
        1 volume: u32,
        /// `ctx_resource_name`: at most 127 bytes.
        2 resource_name: String,
        /// `ctx_my_addr`.
        3 my_addr: Address,
        /// `ctx_peer_addr`.
        4 peer_addr: Address,
        /// `ctx_conn_name`: the connection's name, usually the peer's host name (9).
        5 conn_name: String,
        /// `ctx_peer_node_id` (9).
        6 peer_node_id: u32,
    }
}

/// `CFG_REPLY` (1): DRBD's lines about an answer; `info_text` may occur several times.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct CfgReply {
    /// The lines.
    pub info_text: Vec<String>,
    /// Attributes that this version does not know.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub other: Vec<Attr>,
}

impl Value for CfgReply {
    const NESTED: bool = true;

    fn parse(bytes: &[u8], dialect: Dialect) -> Result<Self, ValueError> {
        let mut reply = Self::default();
        for attr in RawAttr::list(bytes) {
            let attr = attr?;
            match attr.number() {
                0 => {}
                1 => reply.info_text.push(nest::field("CfgReply", "info_text", attr, dialect)?),
                _ => reply.other.push(attr.to_owned()),
            }
        }
        Ok(reply)
    }

    fn emit(&self, dialect: Dialect, out: &mut Vec<u8>) -> bool {
        self.info_text.iter().for_each(|line| nest::put(1, Some(line), dialect, out));
        nest::put_all(&self.other, out);
        true
    }
}

nest! {
    /// `NOTIFICATION_HEADER` (23).
    NotificationHeader {
        /// `nh_type`: what happened.
        1 nh_type: Notified,
    }
}

/// What a notification says happened; the top bit is set while more records of the same state change follow.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Notified(pub u32);

impl Notified {
    /// Part of the initial state.
    pub const EXISTS: u32 = 0;
    /// A new object.
    pub const CREATE: u32 = 1;
    /// Another state.
    pub const CHANGE: u32 = 2;
    /// The object is gone.
    pub const DESTROY: u32 = 3;
    /// A helper program starts.
    pub const CALL: u32 = 4;
    /// A helper program has ended.
    pub const RESPONSE: u32 = 5;
    /// The resource has another name (9).
    pub const RENAME: u32 = 6;

    const CONTINUES: u32 = 0x8000; // drbd_genl.h, NOTIFY_CONTINUES

    /// The type alone.
    pub fn what(self) -> u32 {
        self.0 & !Self::CONTINUES
    }

    /// More records of the same state change follow.
    pub fn continues(self) -> bool {
        self.0 & Self::CONTINUES != 0
    }
}

impl fmt::Debug for Notified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = ["exists", "create", "change", "destroy", "call", "response", "rename"];
        match usize::try_from(self.what()).ok().and_then(|what| words.get(what)) {
            Some(word) => f.write_str(word)?,
            None => write!(f, "unknown({})", self.what())?,
        }
        f.write_str(if self.continues() { "+" } else { "" })
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Notified {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0)
    }
}

impl Value for Notified {
    fn parse(bytes: &[u8], dialect: Dialect) -> Result<Self, ValueError> {
        u32::parse(bytes, dialect).map(Notified)
    }

    fn emit(&self, dialect: Dialect, out: &mut Vec<u8>) -> bool {
        self.0.emit(dialect, out)
    }
}

nest! {
    /// `HELPER` (24): a program that the kernel runs for a resource (fence-peer, before-resync-target and so on).
    HelperInfo {
        /// `helper_name`.
        1 name: String,
        /// `helper_status`: a wait status; the exit code is its second byte.
        2 status: u32,
    }
}
