//! The lab as a whole: up, down, its links.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::host;
use crate::image::{self, Drbd, RESOURCES};
use crate::keeper;
use crate::layout::{Layout, NODES};
use crate::node::Node;
use crate::process;
use crate::qemu::{self, DiskCache};
use crate::qmp::Link;
use crate::ssh;
use crate::state::State;
use crate::witness::Witness;

/// How long DRBD may take to be connected and up to date on both nodes, a resynchronisation included.
const REPLICATION_LIMIT: Duration = Duration::from_secs(120);

/// How a lab is to be.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its directory; see [`Layout::new`].
    pub dir: Option<PathBuf>,
    /// Keep the disks as the last `down` left them, instead of new ones.
    pub keep_disks: bool,
    /// A directory with kernel modules (`drbd.ko` and others) that the nodes load instead of the kernel's own.
    pub drbd_modules: Option<PathBuf>,
    /// How QEMU treats the disk that DRBD replicates.
    pub disk_cache: DiskCache,
    /// A program and its arguments that calls [`run_keeper`](crate::run_keeper).
    pub keeper: Vec<String>,
    /// Takes one line for each step that takes time.
    pub say: fn(&str),
}

impl Options {
    /// A lab as most want it. The keeper is still to be named.
    #[must_use]
    pub fn new(say: fn(&str)) -> Self {
        Self {
            dir: None,
            keep_disks: false,
            drbd_modules: None,
            disk_cache: DiskCache::default(),
            keeper: Vec::new(),
            say,
        }
    }
}

/// A running lab.
#[derive(Debug, Clone)]
pub struct Lab {
    layout: Layout,
    nodes: [Node; 2],
}

impl Lab {
    /// Builds what is missing, starts both nodes and waits until DRBD is up to date on both. A lab that runs is left as
    /// it is, but a node that is off is switched on.
    ///
    /// # Errors
    /// Anything on the way: no Debian 12, a package that is not to be had, a node that does not come up. Then nothing runs.
    pub fn up(options: &Options) -> anyhow::Result<Self> {
        host::ensure_packages(options.say)?;
        let lab = Self::new(Layout::new(options.dir.as_deref())?);
        let _lock = lab.lock()?;
        if lab.is_running()? {
            lab.switch_all_on()?;
        } else {
            lab.start(options)?;
        }
        Ok(lab)
    }

    fn start(&self, options: &Options) -> anyhow::Result<()> {
        end_everything(&self.layout)?;
        fs::remove_dir_all(self.layout.programs()).ok();
        let drbd = Drbd::choose(options.drbd_modules.as_deref())?;
        image::build(&self.layout, &drbd, options.say)?;
        let fresh = !(options.keep_disks
            && NODES.iter().all(|node| self.layout.disk(*node).exists() && self.layout.state_disk(*node).exists()));
        if fresh {
            image::create_disks(&self.layout)?;
        }
        let state = State { ssh_ports: free_ports()?, disk_cache: options.disk_cache, cut: Vec::new() };
        ssh::write_config(&self.layout, state.ssh_ports)?;
        let leash = keeper::start(&self.layout, &options.keeper)?;
        state.save(&self.layout)?;
        (options.say)("starting both nodes");
        match self.boot(&state, fresh) {
            Ok(()) => leash.stay(),
            Err(error) => {
                end_everything(&self.layout).ok();
                Err(error)
            }
        }
    }

    /// Both at once: each has a processor of its own, and DRBD on one waits for the other.
    fn boot(&self, state: &State, fresh: bool) -> anyhow::Result<()> {
        let [first, second] = &self.nodes;
        let (first, second) = (first.start(state, fresh, &[])?, second.start(state, fresh, &[])?);
        thread::scope(|scope| {
            let second = scope.spawn(|| second.wait());
            first.wait()?;
            second.join().unwrap_or_else(|_| bail!("The wait for node2 panicked"))
        })?;
        self.wait_until_replicated(REPLICATION_LIMIT)
    }

    fn switch_all_on(&self) -> anyhow::Result<()> {
        self.nodes.iter().try_for_each(Node::power_on)
    }

    /// The lab that runs in the directory of `BASCULE_LAB_DIR`, else in `target/lab`.
    ///
    /// # Errors
    /// There is none.
    pub fn attach() -> anyhow::Result<Self> {
        Self::attach_in(None)
    }

    /// The lab that runs in a directory.
    ///
    /// # Errors
    /// There is none.
    pub fn attach_in(dir: Option<PathBuf>) -> anyhow::Result<Self> {
        let lab = Self::new(Layout::new(dir.as_deref())?);
        ensure!(lab.is_running()?, "No lab runs in {}: `cargo xtask lab up`", lab.layout.dir().display());
        Ok(lab)
    }

    /// Ends the lab of a directory; nothing of it runs afterwards. Its disks, consoles and logs stay.
    ///
    /// # Errors
    /// A process cannot be ended.
    pub fn down(dir: Option<PathBuf>) -> anyhow::Result<()> {
        let lab = Self::new(Layout::new(dir.as_deref())?);
        let _lock = lab.lock()?;
        end_everything(&lab.layout)
    }

    /// Node 1 or 2.
    ///
    /// # Panics
    /// There is no other.
    #[must_use]
    pub fn node(&self, nr: u8) -> &Node {
        assert!(NODES.contains(&nr), "The lab has nodes 1 and 2, no {nr}");
        &self.nodes[usize::from(nr - 1)]
    }

    /// Both nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Node; 2] {
        &self.nodes
    }

    /// Where the lab keeps its things.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What a machine in the guests' network has seen of them, and the way to send them orders.
    #[must_use]
    pub fn witness(&self) -> Witness {
        Witness::open(self.layout.sockets())
    }

    /// Pulls the cable of a link on both nodes.
    ///
    /// # Errors
    /// The monitor of a node does not answer.
    pub fn cut(&self, link: Link) -> anyhow::Result<()> {
        self.set_link(link, false)
    }

    /// Puts the cable of a link back.
    ///
    /// # Errors
    /// The monitor of a node does not answer.
    pub fn restore(&self, link: Link) -> anyhow::Result<()> {
        self.set_link(link, true)
    }

    fn set_link(&self, link: Link, up: bool) -> anyhow::Result<()> {
        let mut state = self.state()?;
        state.cut.retain(|name| name != link.name());
        if !up {
            state.cut.push(link.name().to_owned());
        }
        state.save(&self.layout)?;
        self.nodes.iter().filter(|node| node.is_on()).try_for_each(|node| node.set_link(link, up))
    }

    /// Waits until each volume of each resource is connected and up to date on both nodes.
    ///
    /// # Errors
    /// The limit passed; the error shows what DRBD says.
    pub fn wait_until_replicated(&self, limit: Duration) -> anyhow::Result<()> {
        let volumes: usize = RESOURCES.iter().map(|resource| resource.volumes.len()).sum();
        // DRBD 9 has no states in /proc/drbd.
        let up_to_date = format!(
            "n=$(grep -c ds:UpToDate/UpToDate /proc/drbd); [ $n -gt 0 ] || n=$(drbdsetup status | grep -c peer-disk:UpToDate); [ $n -eq {volumes} ]"
        );
        self.nodes.iter().try_for_each(|node| {
            node.until("DRBD is up to date on both nodes", &up_to_date, limit).with_context(|| {
                let said = node.run("cat /proc/drbd; drbdsetup status");
                said.map_or_else(|error| error.to_string(), |said| said.stdout)
            })
        })
    }

    /// What runs of it.
    ///
    /// # Errors
    /// The lab's state cannot be read.
    pub fn status(&self) -> anyhow::Result<Status> {
        let state = self.state()?;
        Ok(Status {
            nodes_on: [self.nodes[0].is_on(), self.nodes[1].is_on()],
            ssh_ports: state.ssh_ports,
            cut: state.cut,
            hub_alive: keeper::running(&self.layout).is_some(),
        })
    }

    fn new(layout: Layout) -> Self {
        let nodes = NODES.map(|nr| Node::new(&layout, nr));
        Self { layout, nodes }
    }

    /// It runs when it was said to be up, and its keeper or a node lives.
    fn is_running(&self) -> anyhow::Result<bool> {
        let alive = keeper::running(&self.layout).is_some() || self.nodes.iter().any(Node::is_on);
        Ok(alive && State::load(&self.layout)?.is_some())
    }

    fn state(&self) -> anyhow::Result<State> {
        State::load(&self.layout)?.context("The lab is down: `cargo xtask lab up`")
    }

    /// Nobody else starts or ends this lab meanwhile.
    fn lock(&self) -> anyhow::Result<Flock<File>> {
        let file = File::create(self.layout.file("lock"))?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            Errno::EWOULDBLOCK => {
                anyhow::anyhow!("Somebody else is starting or ending the lab in {}", self.layout.dir().display())
            }
            other => anyhow::Error::new(other).context("The lab cannot be locked"),
        })
    }
}

/// What runs of a lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Whether node 1 and node 2 are on.
    pub nodes_on: [bool; 2],
    /// TCP ports of 127.0.0.1 that lead to their ssh servers.
    pub ssh_ports: [u16; 2],
    /// Names of the links that are cut.
    pub cut: Vec<String>,
    /// Whether the guests' network has its hub.
    pub hub_alive: bool,
}

fn end_everything(layout: &Layout) -> anyhow::Result<()> {
    if let Some(keeper) = keeper::running(layout) {
        keeper.end()?;
    }
    end_everything_but_the_keeper(layout)
}

/// Ends what runs and forgets that it ran.
pub(crate) fn end_everything_but_the_keeper(layout: &Layout) -> anyhow::Result<()> {
    for node in NODES {
        if let Some(process) = qemu::running(layout, node) {
            process.kill()?;
        }
    }
    // One whose starter died before it wrote the pid file.
    for stray in process::with_argument(&qemu::monitor_argument(layout))? {
        stray.kill()?;
    }
    for node in NODES {
        ssh::disconnect(layout, node);
    }
    State::remove(layout);
    for entry in layout.sockets().read_dir()?.flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "sock") {
            fs::remove_file(entry.path()).ok();
        }
    }
    Ok(())
}

/// Ports that are free now. Should somebody take one before QEMU does, QEMU ends with a message that says so.
fn free_ports() -> anyhow::Result<[u16; 2]> {
    let listeners = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    Ok([listeners[0].local_addr()?.port(), listeners[1].local_addr()?.port()])
}
