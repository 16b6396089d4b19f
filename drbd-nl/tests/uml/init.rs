//! The first process of a user-mode Linux that runs DRBD's kernel tests: mounts, modules, the test program, power-off.
//!
//! It is told what to do by the kernel's command line, whose unknown `NAME=value` words become its environment:
//! `UML_MODULES` the directory of the kernel's modules, `UML_DRBDMETA` the program that prepares metadata, `UML_TEST` the test program.
//! Its last line is `uml: exit CODE`. The root is the host's own file system, so everything that is written goes to a tmpfs.

#![expect(clippy::print_stdout, reason = "a program of its own")]

#[path = "loopback.rs"]
mod loopback;
#[path = "modules.rs"]
mod modules;

use std::{
    env,
    error::Error,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    process::{Command, ExitStatus, Stdio},
    thread,
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    mount::{MsFlags, mount},
    sys::reboot::{RebootMode, reboot},
};

/// What DRBD stands on, in the order of their dependence: a map of its own, and the digest of its peers' handshake.
const BASE: &[&str] = &["lib/lru_cache.ko", "crypto/hmac.ko"];
type Outcome<T> = Result<T, Box<dyn Error>>;

/// Never returns while the kernel is alive: the end of the first process is a kernel panic.
fn main() -> Outcome<()> {
    thread::spawn(power_off_with_the_console);
    let code = match run() {
        Ok(status) => status.code().unwrap_or(101),
        Err(error) => {
            println!("uml: {error}");
            102
        }
    };
    if code != 0 {
        kernel_log();
    }
    println!("uml: exit {code}");
    reboot(RebootMode::RB_POWER_OFF)?;
    Ok(())
}

fn run() -> Outcome<ExitStatus> {
    mount_all()?;
    modules::load(BASE)?;
    modules::load(modules::DRBD)?;
    loopback::set_up(true)?;
    let test =
        Command::new(variable("UML_TEST")?).args(["--ignored", "--test-threads=1"]).stdin(Stdio::null()).status();
    test.map_err(|error| format!("cannot run the tests: {error}").into())
}

/// The other end of the console is held by the one who booted this kernel: alone, nobody needs it.
fn power_off_with_the_console() {
    while let Ok(1..) = io::stdin().read(&mut [0; 64]) {}
    reboot(RebootMode::RB_POWER_OFF).expect("the first process may do that");
}

/// The rest of the root stays as it is: programs and modules come from there. `drbdmeta` writes to the last two.
fn mount_all() -> Outcome<()> {
    let mounts =
        [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/run"), ("tmpfs", "/var/lib/drbd")];
    for (kind, target) in mounts.into_iter().filter(|(_, target)| Path::new(target).exists()) {
        match mount(Some(kind), target, Some(kind), MsFlags::empty(), None::<&str>) {
            Ok(()) | Err(Errno::EBUSY) => {} // the kernel mounts devtmpfs itself
            Err(errno) => return Err(format!("cannot mount {kind} at {target}: {errno}").into()),
        }
    }
    fs::create_dir("/run/lock")?;
    Ok(())
}

/// What the kernel had to say, since the console shows only the gravest of it.
fn kernel_log() {
    let Ok(mut log) = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open("/dev/kmsg") else {
        return;
    };
    let mut record = [0; 8192]; // one record per read; "priority,number,time,flags;text"
    while let Ok(length @ 1..) = log.read(&mut record) {
        let record = String::from_utf8_lossy(&record[..length]);
        let text = record.split_once(';').map_or(&*record, |(_, text)| text);
        if text.contains("drbd") {
            println!("kernel: {}", text.lines().next().unwrap_or_default());
        }
    }
}

fn variable(name: &str) -> Outcome<String> {
    env::var(name).map_err(|error| format!("{name}: {error}").into())
}
