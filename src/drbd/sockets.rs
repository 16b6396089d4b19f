//! TCP sockets that DRBD has closed and the kernel cannot get rid of.
//!
//! When the replication link is lost with data on its way, DRBD closes the connection and connects anew. The old socket waits for an
//! acknowledgement that never comes, and since Linux 6.9 (and the stable kernels that took it over) a kernel's own socket has no timer any more
//! that would end the wait (tcp.c, `__tcp_close`). What it had to send are the guest's pages: as long as it holds them the block backend of that
//! domain cannot be closed, and since one kernel thread (xenwatch) closes and opens all backends, no disk or nic of any domain can be attached or
//! detached on this host. Seen on Debian's 6.1.192, for as long as one cared to look. The cure is what `ss -K` does.

use std::io;
use std::net::SocketAddr;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_packet_sock_diag::{SOCK_DESTROY, SockDiagMessage};
use netlink_sys::{Socket, SocketAddr as NetlinkAddr, protocols::NETLINK_SOCK_DIAG};

/// Bytes of one answer of the kernel's.
const ANSWER_MAX: usize = 64 << 10;

/// A socket that nobody owns any more and that waits for its peer's last word. The kernel's cookie tells it from all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftBehind {
    family: u8,
    id: SocketId,
    /// Bytes that it has not sent, or not seen acknowledged.
    pub unsent: u32,
}

impl LeftBehind {
    /// This host's address and port.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        SocketAddr::new(self.id.source_address, self.id.source_port)
    }

    /// The peer's.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        SocketAddr::new(self.id.destination_address, self.id.destination_port)
    }

    /// The kernel's name for it, never used twice.
    #[must_use]
    pub fn cookie(&self) -> [u8; 8] {
        self.id.cookie
    }

    /// Whether it belonged to a connection of DRBD's between these addresses: one end has DRBD's port.
    #[must_use]
    pub fn is_between(&self, mine: SocketAddr, peers: SocketAddr) -> bool {
        let (local, remote) = (self.local(), self.remote());
        local.ip() == mine.ip()
            && remote.ip() == peers.ip()
            && (local.port() == mine.port() || remote.port() == peers.port())
    }

    /// Ends it, and lets go of what it holds.
    ///
    /// # Errors
    /// The kernel refuses; it was built without `INET_DIAG_DESTROY`, say. A socket that has gone meanwhile is no error.
    pub fn destroy(&self) -> io::Result<()> {
        let request = request(self.family, StateFlags::all(), self.id.clone());
        match exchange(request, SOCK_DESTROY, NLM_F_ACK) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done.map(drop),
        }
    }
}

/// All sockets of this host that nobody owns and that wait for their peer's last word.
///
/// # Errors
/// The kernel does not answer.
pub fn left_behind() -> io::Result<Vec<LeftBehind>> {
    let states = StateFlags::FIN_WAIT1 | StateFlags::CLOSING | StateFlags::LAST_ACK;
    let mut found = Vec::new();
    for (family, any) in [(AF_INET, SocketId::new_v4()), (AF_INET6, SocketId::new_v6())] {
        for answer in exchange(request(family, states.clone(), any), SOCK_DIAG_BY_FAMILY, NLM_F_DUMP)? {
            if let SockDiagMessage::InetResponse(response) = answer
                && response.header.inode == 0
            {
                let unsent = response.header.send_queue;
                found.push(LeftBehind { family, id: response.header.socket_id, unsent });
            }
        }
    }
    Ok(found)
}

/// The type of a question (linux/sock_diag.h).
const SOCK_DIAG_BY_FAMILY: u16 = netlink_packet_sock_diag::SOCK_DIAG_BY_FAMILY;

fn request(family: u8, states: StateFlags, socket_id: SocketId) -> InetRequest {
    InetRequest { family, protocol: IPPROTO_TCP, extensions: ExtensionFlags::empty(), states, socket_id }
}

/// Sends one request and gathers the answers up to the acknowledgement or the end of the list.
fn exchange(request: InetRequest, kind: u16, flags: u16) -> io::Result<Vec<SockDiagMessage>> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&NetlinkAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    message.header.message_type = kind;
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut answers = Vec::new();
    loop {
        let mut bytes = Vec::with_capacity(ANSWER_MAX);
        socket.recv(&mut bytes, 0)?;
        if gather(&bytes, &mut answers)? {
            return Ok(answers);
        }
    }
}

/// Whether the end is among what came.
fn gather(mut bytes: &[u8], answers: &mut Vec<SockDiagMessage>) -> io::Result<bool> {
    while !bytes.is_empty() {
        let message = NetlinkMessage::<SockDiagMessage>::deserialize(bytes).map_err(io::Error::other)?;
        let length = usize::try_from(message.header.length).unwrap_or(usize::MAX).next_multiple_of(4);
        match message.payload {
            NetlinkPayload::Done(_) => return Ok(true),
            NetlinkPayload::Error(error) => {
                return match error.code {
                    None => Ok(true),
                    Some(code) => Err(io::Error::from_raw_os_error(code.get().saturating_abs())),
                };
            }
            NetlinkPayload::InnerMessage(answer) => answers.push(answer),
            _ => {}
        }
        bytes = bytes.get(length..).unwrap_or_default();
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn left(local: &str, remote: &str) -> LeftBehind {
        let (local, remote): (SocketAddr, SocketAddr) = (local.parse().unwrap(), remote.parse().unwrap());
        let ip = |address: SocketAddr| -> IpAddr { address.ip() };
        let id = SocketId {
            source_port: local.port(),
            destination_port: remote.port(),
            source_address: ip(local),
            destination_address: ip(remote),
            interface_id: 0,
            cookie: [1; 8],
        };
        LeftBehind { family: AF_INET, id, unsent: 1 }
    }

    #[test]
    fn only_what_was_drbds_is_drbds() {
        let (mine, peers) = ("10.98.0.1:7788".parse().unwrap(), "10.98.0.2:7788".parse().unwrap());
        assert!(left("10.98.0.1:7788", "10.98.0.2:40000").is_between(mine, peers));
        assert!(left("10.98.0.1:40000", "10.98.0.2:7788").is_between(mine, peers));
        assert!(!left("10.98.0.1:22", "10.98.0.2:40000").is_between(mine, peers));
        assert!(!left("10.98.0.1:7788", "10.98.0.3:40000").is_between(mine, peers));
    }

    #[test]
    fn this_hosts_sockets_can_be_listed() {
        left_behind().expect("the kernel answers");
    }
}
