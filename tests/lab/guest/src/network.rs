//! The guest's interface: up, with its address, by rtnetlink.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkFlags, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::net::if_::if_nametoindex;

use crate::cmdline::Address;

/// How long the interface may take to appear after its driver was loaded.
const INTERFACE_WAIT_MAX: Duration = Duration::from_secs(10);
/// Longest answer of the kernel to a request with NLM_F_ACK.
const REPLY_LEN_MAX: usize = 8192;

/// Waits for the interface `name`, gives it `address` and sets it up.
///
/// # Errors
/// The interface does not appear, or the kernel refuses.
pub fn bring_up(name: &str, address: Address) -> anyhow::Result<()> {
    let index = wait_for_interface(name)?;
    let socket = Socket::new(NETLINK_ROUTE)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    request(&socket, add_address(index, address)).context("The kernel refused the address")?;
    request(&socket, set_up(index)).context("The kernel did not set the interface up")
}

fn wait_for_interface(name: &str) -> anyhow::Result<u32> {
    let deadline = Instant::now() + INTERFACE_WAIT_MAX;
    loop {
        match if_nametoindex(name) {
            Ok(index) => return Ok(index),
            Err(error) if Instant::now() >= deadline => {
                return Err(error).context(format!("There is no {name}"));
            }
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn add_address(index: u32, address: Address) -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = address.prefix_len;
    message.header.index = index;
    message.attributes = vec![
        AddressAttribute::Local(IpAddr::V4(address.ip)),
        AddressAttribute::Address(IpAddr::V4(address.ip)),
        AddressAttribute::Broadcast(address.broadcast()),
    ];
    RouteNetlinkMessage::NewAddress(message)
}

fn set_up(index: u32) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    RouteNetlinkMessage::SetLink(message)
}

/// Sends one request and waits for the kernel's acknowledgement.
fn request(socket: &Socket, message: RouteNetlinkMessage) -> anyhow::Result<()> {
    let mut packet = NetlinkMessage::from(message);
    packet.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut reply = Vec::with_capacity(REPLY_LEN_MAX);
    socket.recv(&mut reply, 0)?;
    match NetlinkMessage::<RouteNetlinkMessage>::deserialize(&reply)?.payload {
        NetlinkPayload::Error(error) if error.code.is_none() => Ok(()),
        NetlinkPayload::Error(error) => Err(error.to_io().into()),
        _ => bail!("The kernel did not acknowledge"),
    }
}
