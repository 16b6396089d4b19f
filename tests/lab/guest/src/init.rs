//! PID 1 of the guest: mounts, modules, disks, network, then the workload until somebody wants the guest off.
//!
//! Xen's toolstack asks for that through the kernel, which runs `/sbin/poweroff` or `/sbin/reboot`: this same program, which
//! signals PID 1 (as sysvinit's do: SIGUSR2 and SIGTERM). PID 1 ends the workload, unmounts, so that the file systems are clean, and tells the kernel.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::reboot::{RebootMode, reboot, set_cad_enabled};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, sync};

use crate::cmdline::Parameters;
use crate::console::say;
use crate::network;
use crate::wire::{BootId, COMMAND_PORT, REPORT_PORT};
use crate::workload::{Settings, Workload};

/// The modules to load, one path a line, each after those that it needs. Part of the guest's image.
pub const MODULE_LIST: &str = "/lib/modules/list";
/// The interface on the guests' LAN.
const INTERFACE: &str = "eth0";
/// How long a disk may take to appear after its driver was loaded.
const DISK_WAIT_MAX: Duration = Duration::from_secs(20);
/// How often PID 1 looks whether the workload was told to quit.
const QUIT_POLL_MS: u16 = 500;
/// How long the workload may take to end before the guest goes off without unmounting.
const STOP_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long a file system may stay busy after the workload has ended.
const UNMOUNT_WAIT_MAX: Duration = Duration::from_secs(10);
const UNMOUNT_PAUSE: Duration = Duration::from_millis(100);
/// Time for the last lines to leave by the console.
const CONSOLE_DRAIN: Duration = Duration::from_millis(300);

/// How the guest ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Off.
    PowerOff,
    /// Off and on again, if the toolstack does so.
    Reboot,
}

/// Asks PID 1 to end the guest, as `/sbin/poweroff` and `/sbin/reboot` do.
///
/// # Errors
/// No right to signal PID 1.
pub fn ask_for(ending: Ending) -> anyhow::Result<()> {
    let signal = match ending {
        Ending::PowerOff => Signal::SIGUSR2,
        Ending::Reboot => Signal::SIGTERM,
    };
    kill(Pid::from_raw(1), signal).context("PID 1 cannot be told")
}

/// Runs the guest from its first user-space instruction to its end.
///
/// # Errors
/// Only when it is not PID 1: as PID 1, a guest that cannot start says why on the console and powers off.
pub fn run() -> anyhow::Result<()> {
    anyhow::ensure!(std::process::id() == 1, "This is the init of the lab's guest and runs as PID 1 only");
    let signals = catch_signals()?;
    let (ending, data_dirs) = match start() {
        Ok((workload, data_dirs)) => (serve(workload, &signals), data_dirs),
        Err(error) => {
            say(format_args!("cannot start: {error:#}"));
            (Ending::PowerOff, Vec::new())
        }
    };
    finish(ending, &data_dirs)
}

/// Signals are blocked before the first thread is made, so that all of them come to this fd.
fn catch_signals() -> anyhow::Result<SignalFd> {
    let mut mask = SigSet::empty();
    for signal in [Signal::SIGUSR2, Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD] {
        mask.add(signal);
    }
    mask.thread_block()?;
    SignalFd::new(&mask).context("No signalfd")
}

fn start() -> anyhow::Result<(Workload, Vec<PathBuf>)> {
    mount_kernel_file_systems()?;
    // The kernel would kill anything but PID 1, the program that asks it to end the guest first of all, and the guest would go on.
    fs::write("/proc/sys/vm/panic_on_oom", "2")?;
    set_cad_enabled(false)?;
    let parameters = Parameters::parse(&fs::read_to_string("/proc/cmdline")?)?;
    load_modules()?;
    let data_dirs = mount_disks(&parameters.disks)?;
    if let Some(address) = parameters.address {
        network::bring_up(INTERFACE, address)?;
    }
    let workload = Workload::start(settings(&parameters, data_dirs.clone())?)?;
    say(format_args!("{} counts from {}, disks {:?}", parameters.name, workload.first(), parameters.disks));
    Ok((workload, data_dirs))
}

fn mount_kernel_file_systems() -> anyhow::Result<()> {
    for (kind, target) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        fs::create_dir_all(target)?;
        match mount(Some(kind), target, Some(kind), MsFlags::empty(), None::<&str>) {
            // The kernel may have mounted devtmpfs itself.
            Ok(()) | Err(Errno::EBUSY) => {}
            Err(error) => return Err(error).context(format!("{target} is not mounted")),
        }
    }
    Ok(())
}

fn load_modules() -> anyhow::Result<()> {
    let list = fs::read_to_string(MODULE_LIST).with_context(|| format!("{MODULE_LIST} is not readable"))?;
    for path in list.lines() {
        let file = fs::File::open(path).with_context(|| format!("{path} is not readable"))?;
        match finit_module(&file, c"", ModuleInitFlags::empty()) {
            // ENODEV: a driver for hardware that is not there.
            Ok(()) | Err(Errno::EEXIST | Errno::ENODEV) => {}
            Err(error) => return Err(error).context(format!("{path} is not loaded")),
        }
        // The root file system is memory; what is not needed any more need not move with the guest.
        fs::remove_file(path)?;
    }
    Ok(())
}

/// Mounts each disk's file system, made by whoever made the disk. The kernel replays its journal.
fn mount_disks(disks: &[String]) -> anyhow::Result<Vec<PathBuf>> {
    let mut data_dirs = Vec::new();
    for disk in disks {
        let device = Path::new("/dev").join(disk);
        wait_for_disk(&device)?;
        let target = Path::new("/data").join(disk);
        fs::create_dir_all(&target)?;
        mount(Some(&device), &target, Some("ext4"), MsFlags::MS_NOATIME, Some("errors=remount-ro"))
            .with_context(|| format!("{} holds no ext4 file system that can be mounted", device.display()))?;
        data_dirs.push(target);
    }
    Ok(data_dirs)
}

fn wait_for_disk(device: &Path) -> anyhow::Result<()> {
    let deadline = Instant::now() + DISK_WAIT_MAX;
    while !device.exists() {
        anyhow::ensure!(Instant::now() < deadline, "{} does not appear", device.display());
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn settings(parameters: &Parameters, data_dirs: Vec<PathBuf>) -> anyhow::Result<Settings> {
    let broadcast = parameters.address.map_or(Ipv4Addr::LOCALHOST, |address| address.broadcast());
    Ok(Settings {
        name: parameters.name.clone(),
        boot: boot_id()?,
        rate_hz: parameters.rate_hz,
        area_mib: parameters.area_mib,
        dirty_kib_s: parameters.dirty_kib_s,
        data_dirs,
        listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, COMMAND_PORT)),
        report_to: SocketAddr::from((broadcast, REPORT_PORT)),
    })
}

/// The first 32 bits of the kernel's own id of this boot.
fn boot_id() -> anyhow::Result<BootId> {
    let uuid = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    uuid.get(..8).and_then(|digits| digits.parse().ok()).context("The kernel's boot_id is no UUID")
}

/// Waits for a signal or the command to quit, reaping orphans meanwhile, and ends the workload.
fn serve(workload: Workload, signals: &SignalFd) -> Ending {
    let ending = loop {
        if workload.quit_ordered() {
            break Ending::PowerOff;
        }
        match next_signal(signals) {
            Some(Signal::SIGUSR2) => break Ending::PowerOff,
            Some(Signal::SIGTERM | Signal::SIGINT) => break Ending::Reboot,
            _ => reap(),
        }
    };
    say(format_args!("ending: {ending:?}"));
    if !workload.stop(STOP_WAIT_MAX) {
        say(format_args!("a thread of the workload did not end"));
    }
    ending
}

fn next_signal(signals: &SignalFd) -> Option<Signal> {
    let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    if poll(&mut fds, PollTimeout::from(QUIT_POLL_MS)).unwrap_or(0) == 0 {
        return None;
    }
    let info = signals.read_signal().ok().flatten()?;
    Signal::try_from(i32::try_from(info.ssi_signo).ok()?).ok()
}

fn reap() {
    let any_child = Pid::from_raw(-1);
    while waitpid(any_child, Some(WaitPidFlag::WNOHANG)).is_ok_and(|status| status.pid().is_some()) {}
}

/// A thread of the workload may have a file open for a moment longer.
fn unmount(dir: &Path) -> nix::Result<()> {
    let deadline = Instant::now() + UNMOUNT_WAIT_MAX;
    loop {
        match umount2(dir, MntFlags::empty()) {
            Err(Errno::EBUSY) if Instant::now() < deadline => thread::sleep(UNMOUNT_PAUSE),
            result => return result,
        }
    }
}

/// Unmounts and leaves. A file system that cannot be unmounted is at least synced.
fn finish(ending: Ending, data_dirs: &[PathBuf]) -> anyhow::Result<()> {
    for dir in data_dirs {
        if let Err(error) = unmount(dir) {
            say(format_args!("{} is not unmounted: {error}", dir.display()));
        }
    }
    sync();
    thread::sleep(CONSOLE_DRAIN);
    let mode = match ending {
        Ending::PowerOff => RebootMode::RB_POWER_OFF,
        Ending::Reboot => RebootMode::RB_AUTOBOOT,
    };
    match reboot(mode)? {}
}
