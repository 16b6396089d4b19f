//! QEMU's monitor protocol, as much of it as a cable needs (QEMU's docs/interop/qmp-spec.rst).

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};

/// How long QEMU may take to answer. It answers in milliseconds, but both processors may be busy emulating.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// A network between the nodes that can be cut alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// DRBD's connections: eth2 of both nodes, 10.98.0.0/24.
    Replication,
    /// Migrations, and ssh between the nodes: eth1, 10.99.0.0/24.
    Relocation,
    /// The guests' network: eth3, in the bridge xenbr0.
    Lan,
}

impl Link {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Replication, Self::Relocation, Self::Lan];

    /// Its name on the command line and in QEMU.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Replication => "replication",
            Self::Relocation => "relocation",
            Self::Lan => "lan",
        }
    }
}

impl FromStr for Link {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> anyhow::Result<Self> {
        match Self::ALL.into_iter().find(|link| link.name() == name) {
            Some(link) => Ok(link),
            None => bail!("There is no link {name}; there are replication, relocation and lan"),
        }
    }
}

/// Pulls the cable out of a node's nic, or puts it in.
pub(crate) fn set_link(socket: &Path, link: Link, up: bool) -> anyhow::Result<()> {
    let mut monitor = Monitor::connect(socket)?;
    monitor.execute("set_link", &json!({ "name": format!("nic-{}", link.name()), "up": up }))?;
    Ok(())
}

/// Writes what passes a node's nic into a file (pcap), until [`stop_capture`].
pub(crate) fn start_capture(socket: &Path, link: Link, file: &Path) -> anyhow::Result<()> {
    let arguments = json!({
        "qom-type": "filter-dump", "id": CAPTURE, "netdev": link.name(), "file": file.display().to_string(), "maxlen": CAPTURED_LEN_MAX,
    });
    Monitor::connect(socket)?.execute("object-add", &arguments).map(drop)
}

/// What was captured is in the file.
pub(crate) fn stop_capture(socket: &Path) -> anyhow::Result<()> {
    Monitor::connect(socket)?.execute("object-del", &json!({ "id": CAPTURE })).map(drop)
}

const CAPTURE: &str = "capture";
/// Above any frame.
const CAPTURED_LEN_MAX: u32 = 65_536;

/// Lets this machine's loopback reach a port of a node, which sees the client as 10.0.2.2.
pub(crate) fn forward(socket: &Path, from: u16, to: u16) -> anyhow::Result<()> {
    let command = format!("hostfwd_add control tcp:127.0.0.1:{from}-:{to}");
    let answer = Monitor::connect(socket)?.execute("human-monitor-command", &json!({ "command-line": command }))?;
    match answer.as_str().map(str::trim) {
        Some("") => Ok(()),
        said => bail!("QEMU did not forward the port: {said:?}"),
    }
}

struct Monitor {
    reader: BufReader<UnixStream>,
}

impl Monitor {
    fn connect(socket: &Path) -> anyhow::Result<Self> {
        let stream =
            UnixStream::connect(socket).with_context(|| format!("QEMU does not listen on {}", socket.display()))?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        let mut monitor = Self { reader: BufReader::new(stream) };
        monitor.receive().context("QEMU did not greet")?;
        monitor.execute("qmp_capabilities", &json!({}))?;
        Ok(monitor)
    }

    fn execute(&mut self, command: &str, arguments: &Value) -> anyhow::Result<Value> {
        let request = json!({ "execute": command, "arguments": arguments });
        self.reader.get_mut().write_all(format!("{request}\n").as_bytes())?;
        loop {
            let mut answer = self.receive().with_context(|| format!("QEMU did not answer to {command}"))?;
            if let Some(error) = answer.get("error") {
                bail!("QEMU refused {command}: {error}");
            }
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            // Anything else is an event.
        }
    }

    fn receive(&mut self) -> anyhow::Result<Value> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            bail!("QEMU closed its monitor");
        }
        Ok(serde_json::from_str(&line)?)
    }
}
