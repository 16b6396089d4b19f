//! Network links by rtnetlink: find, rename, set up, into a bridge and out of it.

use std::io;
use std::time::Duration;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
#[cfg(test)]
use netlink_packet_route::{AddressFamily, address::AddressAttribute};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt::ReceiveTimeout};
use nix::sys::time::{TimeVal, TimeValLike};

/// How long the kernel may take to answer; it does so while the request is sent.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(5);
/// The most messages that one answer may have: all links of a host with thousands of domains.
const ANSWER_MESSAGES_MAX: usize = 100_000;

/// A socket of rtnetlink.
pub(super) struct Links {
    socket: Socket,
    sequence: u32,
}

/// One network interface of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    /// In bytes; 0 when the kernel does not say.
    pub(super) mtu: u32,
    pub(super) address: Vec<u8>,
    pub(super) is_up: bool,
    /// The bridge that it is a port of, by index.
    pub(super) master: Option<u32>,
    pub(super) kind: Kind,
}

/// What a link is, as far as that matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bridge,
    OpenVSwitch,
    Other,
}

/// A change of one link.
pub(super) enum Change {
    Name(String),
    Address([u8; 6]),
    Mtu(u32),
    /// Into the bridge of this index; 0: out of the one it is in.
    Master(u32),
    Up(bool),
}

impl Links {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        limit_waits(&socket)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The link of that name, or `None`.
    pub(super) fn find(&mut self, name: &str) -> io::Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let answer = self.request(RouteNetlinkMessage::GetLink(message), 0);
        match answer {
            Err(error) if error.raw_os_error() == Some(Errno::ENODEV as i32) => Ok(None),
            answer => Ok(links(answer?).next()),
        }
    }

    /// All links, by index.
    pub(super) fn all(&mut self) -> io::Result<Vec<Link>> {
        let answer = self.request(RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP)?;
        let mut all: Vec<Link> = links(answer).collect();
        all.sort_by_key(|link| link.index);
        Ok(all)
    }

    pub(super) fn change(&mut self, index: u32, change: Change) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        match change {
            Change::Name(name) => message.attributes.push(LinkAttribute::IfName(name)),
            Change::Address(address) => message.attributes.push(LinkAttribute::Address(address.to_vec())),
            Change::Mtu(mtu) => message.attributes.push(LinkAttribute::Mtu(mtu)),
            Change::Master(bridge) => message.attributes.push(LinkAttribute::Controller(bridge)),
            Change::Up(up) => {
                message.header.change_mask = LinkFlags::Up;
                message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
            }
        }
        self.request(RouteNetlinkMessage::SetLink(message), NLM_F_ACK).map(drop)
    }

    /// Takes all addresses of a link away: a bridge's port has none of its own.
    pub(super) fn flush_addresses(&mut self, index: u32) -> io::Result<()> {
        let answer = self.request(RouteNetlinkMessage::GetAddress(AddressMessage::default()), NLM_F_DUMP)?;
        let addresses = answer.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewAddress(address) if address.header.index == index => Some(address),
            _ => None,
        });
        for address in addresses {
            self.request(RouteNetlinkMessage::DelAddress(address), NLM_F_ACK)?;
        }
        Ok(())
    }

    /// Sends a request and takes its whole answer.
    fn request(&mut self, request: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        self.answer(flags)
    }

    /// A dump ends with its own message, a change with a verdict, a single question with its only answer.
    fn answer(&mut self, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut messages = Vec::new();
        while messages.len() < ANSWER_MESSAGES_MAX {
            let (datagram, _) = self.socket.recv_from_full()?;
            for message in split(&datagram) {
                let message = message?;
                if message.header.sequence_number != self.sequence {
                    continue; // left over from a request that was given up
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) if flags & NLM_F_DUMP == NLM_F_DUMP => messages.push(inner),
                    NetlinkPayload::InnerMessage(inner) => return Ok(vec![inner]),
                    NetlinkPayload::Error(verdict) => {
                        return verdict.code.map_or(Ok(messages), |_| Err(verdict.to_io()));
                    }
                    NetlinkPayload::Done(_) => return Ok(messages),
                    _ => {}
                }
            }
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "answer without an end"))
    }
}

/// The messages of one datagram; each begins at a multiple of four bytes.
fn split(datagram: &[u8]) -> impl Iterator<Item = io::Result<NetlinkMessage<RouteNetlinkMessage>>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let message = NetlinkMessage::deserialize(rest).map_err(invalid);
        let len = message.as_ref().map_or(rest.len(), |message: &NetlinkMessage<RouteNetlinkMessage>| {
            usize::try_from(message.header.length).unwrap_or(rest.len()).next_multiple_of(4).max(4)
        });
        rest = rest.get(len..).unwrap_or_default();
        Some(message)
    })
}

fn invalid(error: netlink_packet_core::DecodeError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn links(messages: Vec<RouteNetlinkMessage>) -> impl Iterator<Item = Link> {
    messages.into_iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewLink(link) => Some(Link::of(link)),
        _ => None,
    })
}

impl Link {
    fn of(message: LinkMessage) -> Link {
        let mut link = Link {
            index: message.header.index,
            name: String::new(),
            mtu: 0,
            address: Vec::new(),
            is_up: message.header.flags.contains(LinkFlags::Up),
            master: None,
            kind: Kind::Other,
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Address(address) => link.address = address,
                LinkAttribute::Controller(index) => link.master = Some(index),
                LinkAttribute::LinkInfo(info) => link.kind = Kind::of(&info),
                _ => {}
            }
        }
        link
    }
}

impl Kind {
    fn of(info: &[LinkInfo]) -> Kind {
        let kind = info.iter().find_map(|info| match info {
            LinkInfo::Kind(kind) => Some(kind),
            _ => None,
        });
        match kind {
            Some(InfoKind::Bridge) => Kind::Bridge,
            Some(InfoKind::Other(name)) if name == "openvswitch" => Kind::OpenVSwitch,
            _ => Kind::Other,
        }
    }
}

fn limit_waits(socket: &Socket) -> io::Result<()> {
    let limit = TimeVal::seconds(i64::try_from(ANSWER_WAIT_MAX.as_secs()).unwrap_or(i64::MAX));
    Ok(setsockopt(socket, ReceiveTimeout, &limit)?)
}

#[cfg(test)]
impl Links {
    /// Makes an interface; for tests, in a namespace of their own.
    pub(super) fn make(&mut self, name: &str, kind: InfoKind) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]));
        let flags = NLM_F_ACK | netlink_packet_core::NLM_F_CREATE | netlink_packet_core::NLM_F_EXCL;
        self.request(RouteNetlinkMessage::NewLink(message), flags).map(drop)
    }

    pub(super) fn add_address(&mut self, index: u32, address: std::net::Ipv4Addr) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = 24;
        message.header.index = index;
        message.attributes.push(AddressAttribute::Local(address.into()));
        let flags = NLM_F_ACK | netlink_packet_core::NLM_F_CREATE | netlink_packet_core::NLM_F_EXCL;
        self.request(RouteNetlinkMessage::NewAddress(message), flags).map(drop)
    }

    pub(super) fn ipv4_addresses(&mut self, index: u32) -> io::Result<usize> {
        let answer = self.request(RouteNetlinkMessage::GetAddress(AddressMessage::default()), NLM_F_DUMP)?;
        let is_ours = |message: &RouteNetlinkMessage| match message {
            RouteNetlinkMessage::NewAddress(address) => {
                address.header.index == index && address.header.family == AddressFamily::Inet
            }
            _ => false,
        };
        Ok(answer.iter().filter(|message| is_ours(message)).count())
    }
}
