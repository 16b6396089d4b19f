//! The first process of a user-mode Linux that runs DRBD's kernel tests: mounts, modules, metadata, the test program, power-off.
//!
//! It is told what to do by the kernel's command line, whose unknown `NAME=value` words become its environment:
//! `UML_MODULES` the directory of the kernel's modules, `UML_DRBDMETA` the program, `UML_DISKS` a number, `UML_TEST` the test program.
//! Its last line is `uml: exit CODE`. The root is the host's own file system, so everything that is written goes to a tmpfs.

#![expect(clippy::print_stdout, reason = "a program of its own")]

#[path = "modules.rs"]
mod modules;

use std::{
    env,
    error::Error,
    fs,
    process::{Command, ExitStatus},
};

use drbd_nl::wire::{Message, NLM_F_REQUEST};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::{
    mount::{MsFlags, mount},
    sys::reboot::{RebootMode, reboot},
};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Never returns while the kernel is alive: the end of the first process is a kernel panic.
fn main() -> Outcome<()> {
    let code = match run() {
        Ok(status) => status.code().unwrap_or(101),
        Err(error) => {
            println!("uml: {error}");
            102
        }
    };
    println!("uml: exit {code}");
    reboot(RebootMode::RB_POWER_OFF)?;
    Ok(())
}

fn run() -> Outcome<ExitStatus> {
    mount_all()?;
    modules::load(modules::ALL)?;
    bring_up_loopback()?;
    (0..variable("UML_DISKS")?.parse()?).try_for_each(create_metadata)?;
    let test = Command::new(variable("UML_TEST")?).args(["--ignored", "--test-threads=1"]).status()?;
    Ok(test)
}

fn mount_all() -> Outcome<()> {
    for (kind, target) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("tmpfs", "/run"),
        ("tmpfs", "/tmp"),
        ("tmpfs", "/var/lib"),
    ] {
        mount(Some(kind), target, Some(kind), MsFlags::empty(), None::<&str>)
            .map_err(|errno| format!("cannot mount {kind} at {target}: {errno}"))?;
    }
    ["/run/lock", "/var/lib/drbd"].iter().try_for_each(fs::create_dir)?;
    Ok(())
}

/// RTM_NEWLINK for the first interface with IFF_UP, in flags and in the mask of flags to change (linux/rtnetlink.h).
fn bring_up_loopback() -> Outcome<()> {
    const RTM_NEWLINK: u16 = 16;
    const NLM_F_ACK: u16 = 4;
    const IFF_UP: u32 = 1;
    let mut ifinfomsg = vec![0; 4]; // family, padding, type
    ifinfomsg.extend(1u32.to_ne_bytes()); // index of lo
    ifinfomsg.extend(IFF_UP.to_ne_bytes());
    ifinfomsg.extend(IFF_UP.to_ne_bytes());
    let flags = NLM_F_REQUEST | NLM_F_ACK;
    let message = Message { kind: RTM_NEWLINK, flags, sequence: 1, port: 0, payload: ifinfomsg };
    let socket = Socket::new(NETLINK_ROUTE)?;
    socket.send_to(&message.emit(), &SocketAddr::new(0, 0), 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer = drbd_nl::wire::messages(&answer).next().ok_or("no answer")??;
    match answer.verdict()?.map(|verdict| verdict.errno) {
        Some(0) => Ok(()),
        verdict => Err(format!("cannot bring lo up: {verdict:?}").into()),
    }
}

/// `drbdmeta create-md`: the one thing about DRBD that no netlink command does.
fn create_metadata(disk: u8) -> Outcome<()> {
    let device = format!("/dev/ubd{}", char::from(b'a' + disk));
    let minor = disk.to_string();
    let output = Command::new(variable("UML_DRBDMETA")?)
        .args(["--force", &minor, "v08", &device, "internal", "create-md"])
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("drbdmeta of {device}: {}", String::from_utf8_lossy(&output.stderr)).into())
}

fn variable(name: &str) -> Outcome<String> {
    env::var(name).map_err(|error| format!("{name}: {error}").into())
}
