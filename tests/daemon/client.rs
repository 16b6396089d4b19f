//! Peers: one that proves who it is, and crowds that do not.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};
use socket2::{Domain, Socket, Type};

use crate::stand_in::I_AM;

/// How long anything may take that comes at once on a machine with nothing else to do.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// A peer with a session.
#[derive(Debug)]
pub(crate) struct Known(BufReader<TcpStream>);

impl Known {
    /// Connects from this address and proves to be somebody.
    pub(crate) fn enter(daemon: SocketAddr, from: Ipv4Addr) -> anyhow::Result<Known> {
        let (known, answer) = Known::try_enter(daemon, from)?;
        ensure!(answer == "welcome\n", "{from} was answered {answer:?}");
        Ok(known)
    }

    /// The same, with what it is answered.
    pub(crate) fn try_enter(daemon: SocketAddr, from: Ipv4Addr) -> anyhow::Result<(Known, String)> {
        let stream = connect(daemon, from)?;
        stream.set_read_timeout(Some(SOON))?;
        let mut known = Known(BufReader::new(stream));
        known.0.get_mut().write_all(format!("{I_AM}peer-{from}\n").as_bytes())?;
        let answer = known.line().with_context(|| format!("{from} was not answered"))?;
        Ok((known, answer))
    }

    /// The session lives.
    pub(crate) fn ping(&mut self) -> anyhow::Result<()> {
        self.say("ping")?;
        let answer = self.line().context("The session does not answer")?;
        ensure!(answer == "ping\n", "it answered {answer:?}");
        Ok(())
    }

    pub(crate) fn say(&mut self, line: &str) -> anyhow::Result<()> {
        Ok(self.0.get_mut().write_all(format!("{line}\n").as_bytes())?)
    }

    /// What it is told, or nothing when the connection ends.
    pub(crate) fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(String::new()),
            read => read.map(|_| line).map_err(Into::into),
        }
    }
}

/// Connects from an address of this host.
pub(crate) fn connect(daemon: SocketAddr, from: Ipv4Addr) -> anyhow::Result<TcpStream> {
    let socket = bound(from)?;
    socket.connect_timeout(&daemon.into(), SOON)?;
    Ok(socket.into())
}

fn bound(from: Ipv4Addr) -> anyhow::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(from.into(), 0).into())?;
    Ok(socket)
}

/// Many connections at once.
#[derive(Debug)]
pub(crate) struct Crowd(Vec<Socket>);

impl Crowd {
    /// Connects all of them without waiting for any.
    pub(crate) fn of(daemon: SocketAddr, from: impl IntoIterator<Item = Ipv4Addr>) -> anyhow::Result<Crowd> {
        let connect = |from| {
            let socket = bound(from)?;
            socket.set_nonblocking(true)?;
            match socket.connect(&daemon.into()) {
                Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => Err(error.into()),
                _ => Ok(socket),
            }
        };
        from.into_iter().map(connect).collect::<anyhow::Result<_>>().map(Crowd)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Each says this, if it still may.
    pub(crate) fn say(&self, bytes: &[u8]) {
        for socket in &self.0 {
            let _ = socket.send(bytes);
        }
    }

    /// Waits until no more than so many are left; nobody may be told anything.
    pub(crate) fn await_cut_off(&mut self, left: usize) -> anyhow::Result<()> {
        // Who found the queue full is told so by nobody, and asks again after one second, two, four…
        let deadline = Instant::now() + SOON * 3;
        while self.0.len() > left {
            ensure!(Instant::now() < deadline, "{} are not cut off", self.0.len());
            self.look()?;
        }
        Ok(())
    }

    /// Forgets those that have ended.
    pub(crate) fn look(&mut self) -> anyhow::Result<()> {
        let mut fds: Vec<PollFd<'_>> =
            self.0.iter().map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)).collect();
        poll(&mut fds, PollTimeout::from(100_u8))?;
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        let mut ready = ready.into_iter();
        let mut told = 0;
        self.0.retain(|socket| !ready.next().unwrap_or(false) || !has_ended(socket, &mut told));
        ensure!(told == 0, "{told} bytes were told to strangers");
        Ok(())
    }
}

fn has_ended(socket: &Socket, told: &mut usize) -> bool {
    use std::os::fd::AsRawFd;
    match recv(socket.as_raw_fd(), &mut [0; 64], MsgFlags::MSG_DONTWAIT) {
        Ok(0) => true,
        Ok(len) => {
            *told += len;
            false
        }
        Err(errno) => errno != Errno::EAGAIN,
    }
}
