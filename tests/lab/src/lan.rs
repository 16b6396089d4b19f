//! The guests' LAN: a hub between the nodes' bridges, which is a witness too.
//!
//! Every node's QEMU sends the Ethernet frames of its guests' bridge to a socket of the hub, and the hub repeats them to
//! all other nodes, as a cable would. It writes down each datagram of a workload guest with the time and the node that it
//! came from: what a machine on that LAN would see of a migration. Commands to the guests go the other way.
//!
//! A node that is down or restarting is a cable that is pulled: frames for it are dropped, nothing ends.

pub mod frame;
pub mod log;

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use lab_guest::wire::{Command, Datagram};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::time::{ClockId, clock_gettime};

use log::{LogWriter, Record};

/// Longest Ethernet frame that the hub takes, in bytes; above any MTU that the nodes use.
const FRAME_LEN_MAX: usize = 65_536;
/// Frames taken from one port before the others have their turn.
const FRAMES_PER_TURN: usize = 16;

/// The hub's socket for a node: the `remote.path` of that node's netdev.
#[must_use]
pub fn hub_socket(dir: &Path, node: u8) -> PathBuf {
    dir.join(format!("lan-hub-{node}.sock"))
}

/// The node's own socket: the `local.path` of its netdev.
#[must_use]
pub fn node_socket(dir: &Path, node: u8) -> PathBuf {
    dir.join(format!("lan-node{node}.sock"))
}

/// Where the hub takes commands for the guests, one `lab_guest::wire::Command` a datagram.
#[must_use]
pub fn control_socket(dir: &Path) -> PathBuf {
    dir.join("lan-control.sock")
}

/// What the hub has seen of the guests; read it with [`Witness`](crate::witness::Witness).
#[must_use]
pub fn witness_log(dir: &Path) -> PathBuf {
    dir.join("witness.log")
}

/// Runs the hub between `nodes` until the process ends. Sockets and log are in `dir`; those that an earlier hub left are replaced.
///
/// # Errors
/// A socket or the log cannot be made, or the log can no longer be written.
pub fn run(dir: &Path, nodes: &[u8]) -> anyhow::Result<()> {
    let mut hub = Hub::open(dir, nodes)?;
    loop {
        hub.wait()?;
        for port in 0..hub.ports.len() {
            hub.take_frames(port)?;
        }
        hub.take_commands();
    }
}

/// The host's CLOCK_MONOTONIC, by which the witness's times are given.
#[must_use]
pub fn monotonic_now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default()
}

#[derive(Debug)]
struct Hub {
    ports: Vec<Port>,
    control: UnixDatagram,
    log: LogWriter,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Port {
    node: u8,
    socket: UnixDatagram,
    peer: PathBuf,
}

impl Hub {
    fn open(dir: &Path, nodes: &[u8]) -> anyhow::Result<Self> {
        let port = |node: &u8| -> anyhow::Result<Port> {
            Ok(Port { node: *node, socket: bind(&hub_socket(dir, *node))?, peer: node_socket(dir, *node) })
        };
        Ok(Self {
            ports: nodes.iter().map(port).collect::<Result<_, _>>()?,
            control: bind(&control_socket(dir))?,
            log: LogWriter::open(&witness_log(dir))?,
            buffer: vec![0; FRAME_LEN_MAX],
        })
    }

    fn wait(&self) -> anyhow::Result<()> {
        let sockets = self.ports.iter().map(|port| &port.socket).chain([&self.control]);
        let mut fds: Vec<_> = sockets.map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)).collect();
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error).context("The hub cannot wait for frames"),
        }
    }

    /// Repeats what a port has for the others. A port that fails is as good as silent.
    fn take_frames(&mut self, port: usize) -> anyhow::Result<()> {
        for _ in 0..FRAMES_PER_TURN {
            let Ok(length) = self.ports[port].socket.recv(&mut self.buffer) else { break };
            let frame = &self.buffer[..length];
            for other in self.ports.iter().filter(|other| other.node != self.ports[port].node) {
                other.send(frame);
            }
            if let Some(datagram) = frame::report_in(frame).and_then(|payload| Datagram::parse(payload).ok()) {
                self.log.write(&seen_now(self.ports[port].node, datagram))?;
            }
        }
        Ok(())
    }

    /// Sends commands to all nodes: where a guest runs is not the hub's business.
    fn take_commands(&mut self) {
        while let Ok(length) = self.control.recv(&mut self.buffer) {
            let payload = &self.buffer[..length];
            if Command::parse(payload).is_ok() {
                let frame = frame::command_frame(payload);
                self.ports.iter().for_each(|port| port.send(&frame));
            }
        }
    }
}

impl Port {
    /// A node that does not listen, or not fast enough, loses the frame.
    fn send(&self, frame: &[u8]) {
        drop(self.socket.send_to(frame, &self.peer));
    }
}

fn seen_now(node: u8, datagram: Datagram) -> Record {
    Record { at: monotonic_now(), wall: SystemTime::now(), node, datagram }
}

/// A datagram socket at `path`, in place of whatever an earlier hub left there.
fn bind(path: &Path) -> anyhow::Result<UnixDatagram> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("{} cannot be replaced", path.display()));
        }
        _ => {}
    }
    let socket = UnixDatagram::bind(path).with_context(|| format!("No socket at {}", path.display()))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use lab_guest::wire::{BootId, Order, Report};

    use super::*;
    use crate::witness::Witness;

    const WAIT_MAX: Duration = Duration::from_secs(10);

    /// Two nodes' ends of the cables, around a hub that ends with the test process.
    fn lan() -> (tempfile::TempDir, [UnixDatagram; 2]) {
        let dir = tempfile::tempdir().unwrap();
        let nodes = [1, 2].map(|node| {
            let socket = UnixDatagram::bind(node_socket(dir.path(), node)).unwrap();
            socket.set_read_timeout(Some(WAIT_MAX)).unwrap();
            socket
        });
        let path = dir.path().to_owned();
        thread::spawn(move || run(&path, &[1, 2]));
        while !witness_log(dir.path()).exists() {
            thread::sleep(Duration::from_millis(1));
        }
        (dir, nodes)
    }

    fn receive(node: &UnixDatagram) -> Vec<u8> {
        let mut buffer = vec![0; FRAME_LEN_MAX];
        let length = node.recv(&mut buffer).unwrap();
        buffer.truncate(length);
        buffer
    }

    #[test]
    fn frames_go_to_the_other_node_only() {
        let (dir, [node1, node2]) = lan();
        node1.send_to(b"any frame", hub_socket(dir.path(), 1)).unwrap();
        assert_eq!(receive(&node2), b"any frame");
        node2.send_to(b"back", hub_socket(dir.path(), 2)).unwrap();
        assert_eq!(receive(&node1), b"back");
    }

    #[test]
    fn a_node_that_is_gone_and_comes_back_is_served() {
        let (dir, [node1, node2]) = lan();
        drop(node2);
        let path = node_socket(dir.path(), 2);
        node1.send_to(b"to a closed socket", hub_socket(dir.path(), 1)).unwrap();
        fs::remove_file(&path).unwrap();
        node1.send_to(b"to no socket", hub_socket(dir.path(), 1)).unwrap();
        // The hub has taken both when it answers a third party's frame.
        let node2 = UnixDatagram::bind(&path).unwrap();
        node2.send_to(b"I am back", hub_socket(dir.path(), 2)).unwrap();
        assert_eq!(receive(&node1), b"I am back");
        node1.send_to(b"welcome", hub_socket(dir.path(), 1)).unwrap();
        let last = (0..3).map(|_| receive(&node2)).find(|frame| frame == b"welcome");
        assert!(last.is_some());
    }

    #[test]
    fn reports_are_witnessed_with_the_node_that_they_came_from() {
        let (dir, [node1, node2]) = lan();
        let witness = Witness::open(dir.path());
        for (node, n) in [(1, 10), (2, 11)] {
            let report = Report { name: "vm0".to_owned(), boot: BootId(1), n, ..Report::default() };
            let frame = frame::report_frame(report.to_string().as_bytes());
            let socket = if node == 1 { &node1 } else { &node2 };
            let seen = thread::scope(|scope| {
                let waiting = scope.spawn(|| witness.wait_for_n("vm0", n, WAIT_MAX));
                while !waiting.is_finished() {
                    socket.send_to(&frame, hub_socket(dir.path(), node)).unwrap();
                    thread::sleep(Duration::from_millis(5));
                }
                waiting.join().unwrap().unwrap()
            });
            assert_eq!((seen.node, seen.report.n), (node, n));
        }
    }

    #[test]
    fn commands_reach_both_nodes() {
        let (dir, [node1, node2]) = lan();
        let id = Witness::open(dir.path()).command("vm0", Order::Dirty(64)).unwrap();
        for node in [node1, node2] {
            let frame = receive(&node);
            let command = Command::parse(frame::command_in(&frame).unwrap()).unwrap();
            assert_eq!(command, Command { to: "vm0".to_owned(), id, order: Order::Dirty(64) });
        }
    }
}
