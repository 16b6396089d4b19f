//! The daemon's broom: dead connections of DRBD's let go of the guests' pages that they hold, and the records of migrations whose
//! process was killed go, but for those that say what is left to do.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::admission;
use crate::drbd::sockets::{self, LeftBehind};
use crate::migrate::chain;

/// Between two looks. A socket that is closed in the ordinary way is gone long before the second.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Remembers what it saw at the last look.
#[derive(Debug)]
pub(super) struct Broom {
    /// Where the records are.
    run_dir: PathBuf,
    seen: HashSet<[u8; 8]>,
    /// Both ends of every connection that there has been: DRBD 8.4 forgets those of one that is StandAlone.
    addresses: HashSet<(SocketAddr, SocketAddr)>,
    next_look: Instant,
}

impl Broom {
    pub(super) fn new(run_dir: PathBuf) -> Broom {
        let addresses = addresses().unwrap_or_default();
        Broom { run_dir, seen: HashSet::new(), addresses, next_look: Instant::now() }
    }

    /// Looks, if it is time to; ends the connections that were there at the last look already.
    pub(super) fn sweep(&mut self) {
        if Instant::now() < self.next_look {
            return;
        }
        self.next_look = Instant::now() + LOOK_INTERVAL;
        self.end_connections();
        if let Err(error) = admission::remove_stale_records(&self.run_dir) {
            tracing::warn!(error = %chain(&error), "stale migration records cannot be looked for");
        }
    }

    fn end_connections(&mut self) {
        match self.drbds() {
            Ok(left) => {
                left.iter().filter(|socket| self.seen.contains(&socket.cookie())).for_each(end);
                self.seen = left.iter().map(LeftBehind::cookie).collect();
            }
            Err(error) => tracing::warn!(error, "dead connections of DRBD's cannot be looked for"),
        }
    }

    /// What DRBD has left behind; it is asked for its addresses only when there is something.
    fn drbds(&mut self) -> Result<Vec<LeftBehind>, String> {
        let left = sockets::left_behind().map_err(|error| error.to_string())?;
        if left.is_empty() {
            return Ok(left);
        }
        self.addresses.extend(addresses().map_err(|error| error.to_string())?);
        let is_drbds =
            |socket: &LeftBehind| self.addresses.iter().any(|(mine, peers)| socket.is_between(*mine, *peers));
        Ok(left.into_iter().filter(is_drbds).collect())
    }
}

fn addresses() -> Result<HashSet<(SocketAddr, SocketAddr)>, drbd_nl::Error> {
    let resources = drbd_nl::Drbd::open()?.status()?;
    let connections = resources.iter().flat_map(|resource| &resource.connections);
    Ok(connections
        .filter_map(|connection| Some((connection.my_addr.socket_addr()?, connection.peer_addr.socket_addr()?)))
        .collect())
}

fn end(socket: &LeftBehind) {
    let (local, remote, unsent) = (socket.local(), socket.remote(), socket.unsent);
    match socket.destroy() {
        Ok(()) => {
            tracing::warn!(%local, %remote, unsent, "a dead connection of DRBD's was ended, and lets go of what it had not sent")
        }
        Err(error) => tracing::error!(%local, %remote, %error, "a dead connection of DRBD's cannot be ended: ss -K"),
    }
}
