//! Connections: options, state, and their life from `connect` to `disconnect`.
//!
//! DRBD 8.4 names a connection by its two addresses and forgets it when it becomes StandAlone; DRBD 9 names it by the peer's node id and
//! keeps it until `del_peer`.

use std::fmt;

use crate::{
    Address, CfgContext, Command, ConnectionState, ConnectionStatus, Contents, Dialect, Drbd, Error, Protocol, Role,
    Secret, drbd::Request, nest::nest,
};

/// Names one connection, in both dialects' ways.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Peer {
    /// The resource's name.
    pub resource: String,
    /// The peer's node id: DRBD 9 needs it.
    pub peer_node_id: Option<u32>,
    /// Our end: 8.4 needs both addresses, byte for byte as GET_CONNECTIONS gives them.
    pub my_addr: Address,
    /// The peer's end.
    pub peer_addr: Address,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peer_node_id {
            Some(node_id) => write!(f, "{} (peer node {node_id})", self.resource),
            None => write!(f, "{} ({} to {})", self.resource, self.my_addr, self.peer_addr),
        }
    }
}

nest! {
    /// `NET_CONF` (5): the options of a connection. Debug and Serialize do not show the shared secret, so Deserialize finds none.
    #[cfg_attr(feature = "serde", derive(serde::Deserialize))]
    NetConf {
        /// Sent by the kernel only to a reader with `CAP_SYS_ADMIN`.
        #[cfg_attr(feature = "serde", serde(skip_deserializing))]
        1 shared_secret: Secret,
        /// Digest with which the peers prove that they know the secret.
        2 cram_hmac_alg: String,
        /// Digest over each packet.
        3 integrity_alg: String,
        /// Digest of the online verify.
        4 verify_alg: String,
        /// Digest that lets a resync skip equal blocks.
        5 csums_alg: String,
        /// When a write counts as done.
        6 wire_protocol: Protocol,
        /// Pause between attempts to connect, s.
        7 connect_int: u32,
        /// When a peer that does not answer counts as lost, 0.1 s.
        8 timeout: u32,
        /// Idle time before a ping, s.
        9 ping_int: u32,
        /// How long a ping may take, 0.1 s.
        10 ping_timeo: u32,
        /// Send buffer, bytes, 0 for the kernel's choice.
        11 sndbuf_size: u32,
        /// Receive buffer, bytes, 0 for the kernel's choice.
        12 rcvbuf_size: u32,
        /// Timeouts of one request after which the peer counts as lost.
        13 ko_count: u32,
        /// Buffers for the peer's writes (8.4).
        14 max_buffers_84: u32,
        /// Writes between two barriers.
        15 max_epoch_size: u32,
        /// When to kick the backing device, requests (8.4).
        16 unplug_watermark_84: u32,
        /// Split brain, nobody Primary: what to do.
        17 after_sb_0p: u32,
        /// Split brain, one Primary.
        18 after_sb_1p: u32,
        /// Split brain, two Primaries.
        19 after_sb_2p: u32,
        /// When the outcome of a resync contradicts the roles.
        20 rr_conflict: u32,
        /// When the send buffer is full: 0 block, 1 pull ahead, 2 disconnect.
        21 on_congestion: u32,
        /// Sectors in flight that count as congestion.
        22 cong_fill: u32,
        /// Active extents that count as congestion.
        23 cong_extents: u32,
        /// Both nodes may be Primary.
        24 two_primaries: bool,
        /// This connect gives up the local changes after a split brain (8.4; 9 has it in CONNECT_PARMS).
        25 discard_my_data: bool,
        /// Use TCP_CORK.
        26 tcp_cork: bool,
        /// Split-brain policies also where the history is longer than one generation.
        27 always_asbp: bool,
        /// Try the handshake and do not resync (8.4; 9 has it in CONNECT_PARMS).
        28 tentative: bool,
        /// Compress bitmaps.
        29 use_rle: bool,
        /// 0 no fencing, 1 resource only, 2 resource and node (9).
        30 fencing_policy: u32,
        /// The connection's name, usually the peer's host name (9).
        31 name: String,
        /// Digests in a resync only after the crash of a Primary.
        33 csums_after_crash_only: bool,
        /// How long to wait for a sign of life when both connect at once, 0.1 s.
        34 sock_check_timeo: u32,
        /// Transport: tcp, rdma, lb-tcp (9).
        35 transport_name: String,
        /// Buffers for the peer's writes (9).
        36 max_buffers: u32,
        /// The peer may be read from (9).
        37 allow_remote_read: bool,
        /// TLS by the kernel (9.2).
        38 tls: bool,
        /// Key of the private key (9.2).
        39 tls_privkey: i32,
        /// Key of the certificate (9.2).
        40 tls_certificate: i32,
        /// Keyring (9.2).
        41 tls_keyring: i32,
        /// Use all paths at once (9.2).
        42 load_balance_paths: bool,
        /// Receive buffer of RDMA control messages (9.2).
        43 rdma_ctrl_rcvbuf_size: u32,
        /// Send buffer of RDMA control messages (9.2).
        44 rdma_ctrl_sndbuf_size: u32,
    }
}

nest! {
    /// `DISCONNECT_PARMS` (12).
    DisconnectParms {
        /// Without the peer's consent.
        1 force_disconnect: bool,
    }
}

nest! {
    /// `CONNECT_PARMS` (29, DRBD 9).
    ConnectParms {
        /// Try the handshake and do not resync.
        1 tentative: bool,
        /// Give up the local changes after a split brain.
        2 discard_my_data: bool,
    }
}

nest! {
    /// `CONNECTION_INFO` (17): the state of a connection.
    ConnectionInfo {
        /// `conn_connection_state`.
        1 state: ConnectionState,
        /// `conn_role`: the peer's role.
        2 role: Role,
    }
}

nest! {
    /// `CONNECTION_STATISTICS` (21).
    ConnectionStatistics {
        /// `conn_congested`: the send buffer is more than four fifths full.
        1 congested: bool,
        /// Writes in flight, sectors of 512 bytes (9).
        2 ap_in_flight: u64,
        /// Resync in flight, sectors of 512 bytes (9).
        3 rs_in_flight: u64,
    }
}

impl Drbd {
    /// Allows or forbids two Primaries on one connection, and changes nothing else. The peer adopts the setting, a moment after this
    /// returns: ask it, or repeat its promotion while that answers [`crate::Refusal::TwoPrimaries`].
    ///
    /// # Errors
    ///
    /// [`crate::Refusal::NotProtocolC`]; [`crate::Refusal::NeedAllowTwoPrimaries`] when both are Primary;
    /// [`crate::Refusal::InvalidRequest`] when 8.4 has no such connection (any more).
    pub fn set_two_primaries(&mut self, resource: &str, connection: &ConnectionStatus, on: bool) -> Result<(), Error> {
        // Without DRBD_GENL_F_SET_DEFAULTS: that would reset every other option, the shared secret too.
        let net = NetConf { two_primaries: Some(on), ..NetConf::default() };
        self.net_options(&connection.peer(resource), &net)
    }

    /// Changes the options that are given; the others stay. The peer adopts the protocol, the split-brain policies and two-primaries. Not
    /// kept across a restart, and undone by the next `drbdadm adjust`.
    ///
    /// # Errors
    ///
    /// Refusals name the option.
    pub fn net_options(&mut self, peer: &Peer, net: &NetConf) -> Result<(), Error> {
        let mut request = self.of_connection(Command::CHG_NET_OPTS, peer)?;
        request.contents.net_conf = Some(net.clone());
        self.command(&request)
    }

    /// Starts connecting. On 8.4 this makes the connection, with all its options; on 9 [`Drbd::new_peer`] and
    /// [`Drbd::new_path`] have made it, and `net` is not looked at.
    ///
    /// `discard_my_data` gives up the local changes if the peers find a split brain, in this connection only.
    ///
    /// # Errors
    ///
    /// [`crate::Refusal::LocalAddressInUse`], [`crate::Refusal::PeerAddressInUse`], [`crate::Refusal::NetConfigured`],
    /// [`crate::Refusal::DiscardImpossible`] on a Primary.
    pub fn connect(&mut self, peer: &Peer, net: &NetConf, discard_my_data: bool) -> Result<(), Error> {
        let mut request = self.of_connection(Command::CONNECT, peer)?;
        let discard_my_data = discard_my_data.then_some(true);
        match self.dialect() {
            Dialect::V84 => {
                // The one request of 8.4 that names a connection by resource and addresses together.
                request.context().resource_name = Some(peer.resource.clone());
                request.contents.net_conf = Some(NetConf { discard_my_data, ..net.clone() });
            }
            Dialect::V9 => {
                let parms = ConnectParms { discard_my_data, ..ConnectParms::default() };
                request.contents.connect_parms = Some(parms);
            }
        }
        self.command(&request)
    }

    /// Ends a connection. 8.4 forgets it, addresses included.
    ///
    /// # Errors
    ///
    /// Refused while the peer would lose its last good data, unless `force`.
    pub fn disconnect(&mut self, peer: &Peer, force: bool) -> Result<crate::Change, Error> {
        let mut request = self.of_connection(Command::DISCONNECT, peer)?;
        let parms = DisconnectParms { force_disconnect: force.then_some(true), ..DisconnectParms::default() };
        request.contents.disconnect_parms = force.then_some(parms);
        self.change(&request)
    }

    /// Makes a connection to a peer, with its options (DRBD 9).
    ///
    /// # Errors
    ///
    /// [`Error::NotInDialect`] on 8.4; [`crate::Refusal::TransportMissing`] when the transport's module cannot be loaded.
    pub fn new_peer(&mut self, peer: &Peer, net: &NetConf) -> Result<(), Error> {
        self.only_in(Dialect::V9, Command::NEW_PEER)?;
        let mut request = self.of_connection(Command::NEW_PEER, peer)?;
        request.contents.net_conf = Some(net.clone());
        self.command(&request)
    }

    /// Removes a connection that is StandAlone (DRBD 9).
    ///
    /// # Errors
    ///
    /// [`Error::NotInDialect`] on 8.4.
    pub fn del_peer(&mut self, peer: &Peer) -> Result<(), Error> {
        self.only_in(Dialect::V9, Command::DEL_PEER)?;
        let request = self.of_connection(Command::DEL_PEER, peer)?;
        self.command(&request)
    }

    /// A request about one connection: 8.4 takes the addresses and nothing else, 9 the resource and the node id.
    pub(crate) fn of_connection(&self, command: Command, peer: &Peer) -> Result<Request, Error> {
        let missing = |what| Error::Missing { command, subject: peer.to_string(), what };
        let context = match self.dialect() {
            Dialect::V84 if peer.my_addr.is_empty() || peer.peer_addr.is_empty() => {
                return Err(missing("both addresses: 8.4 has forgotten them"));
            }
            Dialect::V84 => CfgContext {
                my_addr: Some(peer.my_addr.clone()),
                peer_addr: Some(peer.peer_addr.clone()),
                ..CfgContext::default()
            },
            Dialect::V9 => CfgContext {
                resource_name: Some(crate::drbd::checked_name(&peer.resource)?.to_owned()),
                peer_node_id: Some(peer.peer_node_id.ok_or_else(|| missing("the peer's node id"))?),
                ..CfgContext::default()
            },
        };
        let contents = Contents { context: Some(context), ..Contents::default() };
        Ok(Request { contents, ..Request::new(command, peer.to_string()) })
    }
}
