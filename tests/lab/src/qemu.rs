//! A node as a process: QEMU's command line, its start, its end.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::image::Images;
use crate::layout::Layout;
use crate::process::Process;
use crate::qmp::Link;

/// No rdtscp, or PVH and HVM guests die at once; no smap, or the kernel of a PV dom0 dies at its first iretq (seen with
/// QEMU 7.2, which checks the reads of an iretq in ring 3 as if the hypervisor had made them).
/// No AVX: cryptography chooses it where it is offered, and emulated it is several times slower than doing without.
const CPU: &str = "max,-rdtscp,-smap,-avx,-avx2";
const MEMORY_MIB: u32 = 2048;
const DOM0_MIB: u32 = 1024;

/// Without `eager-fpu` emulated processors corrupt SSE registers as soon as a second domain runs.
const XEN_ARGUMENTS: &str =
    "console=com1 com1=115200,8n1 dom0_max_vcpus=1 spec-ctrl=no,eager-fpu xpti=0 loglvl=all guest_loglvl=all";
const DOM0_ARGUMENTS: &str =
    "console=hvc0 mitigations=off nowatchdog audit=0 apparmor=0 random.trust_cpu=on quiet net.ifnames=0";

/// How QEMU treats the disk that DRBD replicates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum DiskCache {
    /// Flushes are ignored: fast, and nothing is lost as long as the host lives.
    #[default]
    Unsafe,
    /// Flushes reach the host's disk.
    Writeback,
    /// Each write reaches the host's disk.
    Writethrough,
}

impl DiskCache {
    fn name(self) -> &'static str {
        match self {
            Self::Unsafe => "unsafe",
            Self::Writeback => "writeback",
            Self::Writethrough => "writethrough",
        }
    }
}

/// What distinguishes one start of a node from another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start<'a> {
    pub(crate) node: u8,
    pub(crate) ssh_port: u16,
    pub(crate) disk_cache: DiskCache,
    /// DRBD's meta data have not been made yet.
    pub(crate) fresh: bool,
    /// How its processor differs from those of the lab, in QEMU's words.
    pub(crate) processor: &'a [&'a str],
}

/// Starts a node in a session of its own, so that it outlives the caller and his terminal; `keeper` ends it where it should not.
pub(crate) fn start(layout: &Layout, start: Start<'_>) -> anyhow::Result<()> {
    let log = File::create(qemu_log(layout, start.node))?;
    let child = Command::new("setsid")
        .arg("qemu-system-x86_64")
        .args(arguments(layout, start))
        .current_dir(layout.dir())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("setsid cannot be started")?;
    Process::of(child.id())?.save(&layout.pid_file(&format!("node{}", start.node)))
}

/// What QEMU itself had to say.
pub(crate) fn qemu_log(layout: &Layout, node: u8) -> PathBuf {
    layout.file(&format!("node{node}.qemu-log"))
}

/// How an argument of each node's QEMU begins, and of no other process.
pub(crate) fn monitor_argument(layout: &Layout) -> String {
    format!("unix:{}/qmp-node", escaped(layout.sockets()))
}

/// The process of a node, if it runs.
pub(crate) fn running(layout: &Layout, node: u8) -> Option<Process> {
    Process::load(&layout.pid_file(&format!("node{node}"))).filter(Process::is_alive)
}

fn arguments(layout: &Layout, start: Start<'_>) -> Vec<String> {
    let node = start.node;
    let images = Images::of(layout);
    let mut words = Words::default();
    words.add("-name", format!("lab-node{node}"));
    words.add("-machine", "q35");
    words.add("-accel", "tcg");
    words.add("-cpu", start.processor.iter().fold(CPU.to_owned(), |cpu, word| format!("{cpu},{word}")));
    words.add("-smp", "1");
    words.add("-m", MEMORY_MIB.to_string());
    words.0.extend(["-nodefaults", "-no-reboot"].map(str::to_owned));
    words.add("-display", "none");
    words.add("-chardev", format!("file,id=console,append=on,path={}", escaped(&layout.console(node))));
    words.add("-serial", "chardev:console");
    words.add("-qmp", format!("{}{node}.sock,server=on,wait=off", monitor_argument(layout)));

    let fresh = u8::from(start.fresh);
    words.add("-kernel", images.hypervisor.display().to_string());
    words.add("-append", format!("{XEN_ARGUMENTS} dom0_mem={DOM0_MIB}M,max:{DOM0_MIB}M"));
    // Multiboot modules: the dom0's kernel with its command line, and its initial RAM disk.
    words.add(
        "-initrd",
        format!(
            "{} {} lab.node={node} lab.fresh={fresh},{}",
            escaped(&images.vmlinux),
            DOM0_ARGUMENTS.replace(',', ",,"),
            escaped(&images.initrd)
        ),
    );

    // The nodes call them vda, vdb, vdc and vdd.
    words.disk("root", &images.root, "readonly=on,file.locking=off");
    words.disk("layer", &images.layer, "readonly=on,file.locking=off");
    words.disk("replicated", &layout.disk(node), &format!("cache={}", start.disk_cache.name()));
    // Its cache is honoured, whatever the other disk's does: what was synced there is there after a loss of power.
    words.disk("state", &layout.state_disk(node), "cache=writeback");

    // The nodes call them eth0 to eth3. `restrict` closes the way out: a node whose replication link is cut would send its
    // packets into the world otherwise.
    words.nic(node, 0, "control", &format!("user,restrict=on,hostfwd=tcp:127.0.0.1:{}-:22", start.ssh_port));
    words.nic(node, 1, Link::Relocation.name(), &datagrams(layout, Link::Relocation, node));
    words.nic(node, 2, Link::Replication.name(), &datagrams(layout, Link::Replication, node));
    words.nic(node, 3, Link::Lan.name(), &datagrams(layout, Link::Lan, node));
    words.0
}

/// The two ends of a link. Datagrams ask for no order of start and survive that either end is started anew. The guests' network
/// has a hub in the middle, with one socket for each node.
fn datagrams(layout: &Layout, link: Link, node: u8) -> String {
    let (name, other) = (link.name(), 3 - node);
    let local = layout.sockets().join(format!("{name}-node{node}.sock"));
    let remote = match link {
        Link::Lan => layout.sockets().join(format!("{name}-hub-{node}.sock")),
        Link::Relocation | Link::Replication => layout.sockets().join(format!("{name}-node{other}.sock")),
    };
    // QEMU does not bind where a socket lies already.
    fs::remove_file(&local).ok();
    format!("dgram,local.type=unix,local.path={},remote.type=unix,remote.path={}", escaped(&local), escaped(&remote))
}

/// In an option of QEMU's a comma in a value is written twice.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

#[derive(Default)]
struct Words(Vec<String>);

impl Words {
    fn add(&mut self, option: &str, value: impl Into<String>) {
        self.0.extend([option.to_owned(), value.into()]);
    }

    fn disk(&mut self, id: &str, file: &Path, options: &str) {
        self.add("-drive", format!("if=none,id={id},format=raw,file={},{options}", escaped(file)));
        self.add("-device", format!("virtio-blk-pci,drive={id}"));
    }

    fn nic(&mut self, node: u8, number: u8, name: &str, backend: &str) {
        let (kind, options) = backend.split_once(',').unwrap_or((backend, ""));
        self.add("-netdev", format!("{kind},id={name},{options}"));
        // No ROM: nothing is booted from the network. `host_mtu` lets the nodes have large frames where they want them.
        self.add(
            "-device",
            format!(
                "virtio-net-pci,id=nic-{name},netdev={name},romfile=,host_mtu=9000,mac=52:54:00:ba:0{node}:0{number}"
            ),
        );
    }
}

/// Begins a node's console afresh.
pub(crate) fn clear_console(layout: &Layout, node: u8) -> anyhow::Result<()> {
    OpenOptions::new().create(true).write(true).truncate(true).open(layout.console(node))?;
    Ok(())
}
