//! Asking nf_tables: one socket, lists of its objects, each with bounds.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use drbd_nl::wire::{self, Message, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::MsgFlags;

use super::Error;

/// How long one reading of the rules may take.
pub(super) const READ_MAX: Duration = Duration::from_secs(20);
/// The most bytes that are read of one host's rules.
const BYTES_MAX: usize = 256 << 20;
/// Room for one datagram: the kernel's pieces of a list are no longer than 32 KiB (`netlink_dump`).
const DATAGRAM_MAX: usize = 64 << 10;

/// Flag: what is listed has changed meanwhile (linux/netlink.h).
const NLM_F_DUMP_INTR: u16 = 0x10;
/// nf_tables' number among netfilter's parts (linux/netfilter/nfnetlink.h).
const NFNL_SUBSYS_NFTABLES: u16 = 10;
/// struct nfgenmsg: the family, a version, a number.
const NFGENMSG_LEN: usize = 4;

/// Requests (linux/netfilter/nf_tables.h, enum nf_tables_msg_types).
#[derive(Clone, Copy, Debug)]
pub(super) enum Get {
    Tables = 1,
    Chains = 4,
    Rules = 7,
    Sets = 10,
    Elements = 13,
    Generation = 16,
}

/// An object of nf_tables: its family (linux/netfilter.h) and its attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) family: u8,
    pub(super) attrs: Vec<u8>,
}

/// What can end a list.
#[derive(Debug)]
pub(super) enum Broken {
    /// What is listed has changed: read again.
    Changed,
    For(Error),
}

impl From<io::Error> for Broken {
    fn from(source: io::Error) -> Broken {
        match source.raw_os_error() {
            // ENOBUFS: something was lost. ENOENT: a set that was there when the sets were listed.
            Some(libc::EINTR | libc::ENOBUFS | libc::ENOENT) => Broken::Changed,
            Some(libc::EPERM | libc::EACCES) => Broken::For(Error::NotRoot),
            _ => Broken::For(Error::Netlink { source }),
        }
    }
}

pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
    deadline: Instant,
    bytes_left: usize,
}

impl Netlink {
    pub(super) fn open() -> io::Result<Netlink> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        Ok(Netlink { socket, sequence: 0, deadline: Instant::now() + READ_MAX, bytes_left: BYTES_MAX })
    }

    /// All objects of a kind; of one family and with these names if they are given.
    pub(super) fn list(&mut self, get: Get, family: u8, names: &[(u16, &str)]) -> Result<Vec<Object>, Broken> {
        let flags = if matches!(get, Get::Generation) { NLM_F_REQUEST } else { NLM_F_REQUEST | NLM_F_DUMP };
        self.send(get, flags, family, names)?;
        let mut objects = Vec::new();
        loop {
            for message in wire::messages(&self.receive()?) {
                let message = message.map_err(|_| Broken::For(Error::Garbled { what: "answer" }))?;
                if message.sequence != self.sequence {
                    continue;
                }
                if message.flags & NLM_F_DUMP_INTR != 0 {
                    return Err(Broken::Changed);
                }
                match message.kind {
                    NLMSG_DONE | NLMSG_ERROR => return outcome(&message).map(|()| objects),
                    _ => objects.extend(object(message)),
                }
                if matches!(get, Get::Generation) {
                    return Ok(objects);
                }
            }
        }
    }

    fn send(&mut self, get: Get, flags: u16, family: u8, names: &[(u16, &str)]) -> io::Result<()> {
        self.sequence += 1;
        let mut payload = vec![family, 0, 0, 0];
        for (kind, name) in names {
            let value = [name.as_bytes(), &[0]].concat();
            wire::Attr { kind: *kind, value }.emit(&mut payload);
        }
        let kind = (NFNL_SUBSYS_NFTABLES << 8) | get as u16;
        let message = Message { kind, flags, sequence: self.sequence, port: 0, payload };
        self.socket.send_to(&message.emit(), &SocketAddr::new(0, 0), 0).map(drop)
    }

    fn receive(&mut self) -> Result<Vec<u8>, Broken> {
        loop {
            self.wait()?;
            let mut bytes = Vec::with_capacity(DATAGRAM_MAX);
            let flags = (MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT).bits();
            let (length, from) = match self.socket.recv_from(&mut bytes, flags) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                received => received?,
            };
            if from.port_number() != 0 {
                continue; // some process, not the kernel
            }
            let left = self.bytes_left.checked_sub(length);
            self.bytes_left = left.ok_or(Broken::For(Error::TooMuch { megabytes: BYTES_MAX >> 20 }))?;
            if length > bytes.len() {
                return Err(Broken::For(Error::Garbled { what: "datagram" }));
            }
            return Ok(bytes);
        }
    }

    fn wait(&self) -> Result<(), Broken> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Broken::For(Error::TooSlow));
        }
        let left = PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], left) {
            Err(errno) if errno != nix::errno::Errno::EINTR => Err(io::Error::from(errno).into()),
            _ => Ok(()),
        }
    }
}

fn outcome(message: &Message) -> Result<(), Broken> {
    let verdict = message.verdict().map_err(|_| Broken::For(Error::Garbled { what: "answer" }))?;
    match verdict.map_or(0, |verdict| verdict.errno) {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno).into()),
    }
}

fn object(message: Message) -> Option<Object> {
    let (nfgenmsg, attrs) = message.payload.split_at_checked(NFGENMSG_LEN)?;
    Some(Object { family: nfgenmsg[0], attrs: attrs.to_vec() })
}
