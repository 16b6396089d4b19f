//! The loopback interface, which is all the network that a pair on one kernel needs. Down, it is a cable that was pulled: nobody is told.

use std::error::Error;

use drbd_nl::wire::{self, Message, NLM_F_REQUEST};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

const RTM_NEWLINK: u16 = 16; // linux/rtnetlink.h
const NLM_F_ACK: u16 = 4; // linux/netlink.h
const IFF_UP: u32 = 1; // linux/if.h
const LOOPBACK_INDEX: u32 = 1;

/// Brings it up or takes it down: RTM_NEWLINK with IFF_UP in the flags, and in the mask of flags to change.
pub(crate) fn set_up(up: bool) -> Result<(), Box<dyn Error>> {
    let mut ifinfomsg = vec![0; 4]; // family, padding, type
    ifinfomsg.extend(LOOPBACK_INDEX.to_ne_bytes());
    ifinfomsg.extend((if up { IFF_UP } else { 0 }).to_ne_bytes());
    ifinfomsg.extend(IFF_UP.to_ne_bytes());
    let flags = NLM_F_REQUEST | NLM_F_ACK;
    let message = Message { kind: RTM_NEWLINK, flags, sequence: 1, port: 0, payload: ifinfomsg };
    let socket = Socket::new(NETLINK_ROUTE)?;
    socket.send_to(&message.emit(), &SocketAddr::new(0, 0), 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer = wire::messages(&answer).next().ok_or("no answer")??;
    match answer.verdict()?.map(|verdict| verdict.errno) {
        Some(0) => Ok(()),
        verdict => Err(format!("cannot change lo: {verdict:?}").into()),
    }
}
