//! The way into a node: OpenSSH's client over one lasting connection per node, because a login costs a second of emulation.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;

use crate::layout::{Layout, NODES};

/// ssh's settings for a lab: `ssh -F target/lab/ssh_config node1`.
pub(crate) fn config_file(layout: &Layout) -> PathBuf {
    layout.file("ssh_config")
}

/// Writes the settings. The servers' key is known beforehand, so nobody is asked.
pub(crate) fn write_config(layout: &Layout, ports: [u16; 2]) -> anyhow::Result<()> {
    let host_key = fs::read_to_string(layout.file("host_ed25519.pub"))?;
    let known_hosts = layout.file("known_hosts");
    fs::write(&known_hosts, format!("lab {host_key}"))?;
    let mut text = String::new();
    for (node, port) in NODES.iter().zip(ports) {
        text.push_str(&host_section(layout, *node, port, &known_hosts));
    }
    fs::write(config_file(layout), text).context("The ssh configuration cannot be written")
}

fn host_section(layout: &Layout, node: u8, port: u16, known_hosts: &Path) -> String {
    format!(
        r#"Host node{node}
    HostName 127.0.0.1
    Port {port}
    User root
    IdentityFile "{key}"
    IdentitiesOnly yes
    HostKeyAlias lab
    UserKnownHostsFile "{known_hosts}"
    StrictHostKeyChecking yes
    GlobalKnownHostsFile /dev/null
    PreferredAuthentications publickey
    ControlMaster auto
    ControlPersist yes
    ControlPath "{socket}"
    ConnectTimeout 30
    ServerAliveInterval 15
    ServerAliveCountMax 4
    LogLevel ERROR
"#,
        key = layout.file("id_ed25519").display(),
        known_hosts = known_hosts.display(),
        socket = layout.sockets().join(format!("ssh-node{node}")).display(),
    )
}

/// A command of ssh's that runs `command` on a node, without terminal and standard input.
pub(crate) fn command(layout: &Layout, node: u8, command: &str) -> Command {
    let mut ssh = client(layout);
    ssh.args([OsStr::new("-T"), OsStr::new(&format!("node{node}")), OsStr::new("--"), OsStr::new(command)]);
    ssh.stdin(Stdio::null());
    ssh
}

/// Ends the lasting connection; no error when there is none.
pub(crate) fn disconnect(layout: &Layout, node: u8) {
    client(layout)
        .args(["-O", "exit", &format!("node{node}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .ok();
}

fn client(layout: &Layout) -> Command {
    let mut ssh = Command::new("ssh");
    ssh.arg("-F").arg(config_file(layout));
    ssh
}
