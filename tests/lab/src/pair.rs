//! The two nodes as a cluster that runs domains: what a test, the demo and the bench do with it, and what must be true afterwards.
//!
//! What is asserted here is read from Xen's and DRBD's own tools and files (`xl list`, `/proc/drbd`, `drbdsetup events2`), not from ours.

mod events;
mod sight;

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::lab::Lab;
use crate::lan::monotonic_now;
use crate::node::{Node, Output};

pub use events::{RoleWatch, Seen};
pub use sight::{Roles, domains};
use sight::{Sight, roles_of, runs};

/// How long a migration may take on a machine that is far too busy.
pub const MIGRATION_LIMIT: Duration = Duration::from_secs(600);
/// How long anything else may take.
const LIMIT: Duration = Duration::from_secs(240);
const POLL: Duration = Duration::from_millis(300);
/// The nodes' configuration of bascule, as they have it from the beginning.
const CONFIGURATION: &str = include_str!("../node/files/etc/bascule/bascule.toml");
const FILE: &str = "/etc/bascule/bascule.toml";
/// What the daemon says.
const LOG: &str = "/var/log/bascule.log";
/// The daemon's process id.
const DAEMON: &str = "/run/lab-daemon";
/// What it was started with.
const OPTIONS: &str = "/run/lab-daemon-options";
/// The lab's own network.
const ALLOW: &str = "--allow 10.99.0.0/24";
/// Whether it runs, and `pid`, in the shell's own words: a search among all processes takes a second under emulation.
const SERVES: &str = "serves() { read -r pid </run/lab-daemon && read -r name <\"/proc/$pid/comm\" && [ \"$name\" = bascule ]; } 2>/dev/null";
/// No migration has a record or an unfinished journal.
const NO_MIGRATION: &str =
    "shopt -s nullglob; open=(/var/lib/bascule/*.journal /run/bascule/migration-*); (( ${#open[@]} == 0 ))";
/// Whether anybody listens on port 8002 (1F42), by the kernel's tables.
const LISTENS: &str = "listens() { for table in /proc/net/tcp /proc/net/tcp6; do while read -r _ at _ state _; do \
    [[ $at == *:1F42 && $state == 0A ]] && return; done <$table; done; return 1; }";

/// A domain that the nodes have a file for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guest {
    /// Its name; its file is `/etc/xen/NAME.cfg`.
    pub name: &'static str,
    /// The minors of its volumes.
    pub minors: &'static [u32],
    /// The resource that they belong to.
    pub resource: &'static str,
}

/// One disk, resource r0.
pub const VM0: Guest = Guest { name: "vm0", minors: &[0], resource: "r0" };
/// Two disks, both volumes of r1.
pub const VM1: Guest = Guest { name: "vm1", minors: &[1, 2], resource: "r1" };

impl Guest {
    /// The domain's file on both nodes.
    #[must_use]
    pub fn file(&self) -> String {
        format!("/etc/xen/{}.cfg", self.name)
    }
}

/// The two nodes.
#[derive(Debug, Clone)]
pub struct Pair {
    lab: Lab,
}

impl Pair {
    /// Over a running lab with our programs in it.
    #[must_use]
    pub fn new(lab: Lab) -> Self {
        Self { lab }
    }

    /// The lab underneath.
    #[must_use]
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Node 1 or 2.
    #[must_use]
    pub fn node(&self, nr: u8) -> &Node {
        self.lab.node(nr)
    }

    /// As at the beginning: no domain, all resources Secondary and up to date, both daemons running, and the nodes paired.
    ///
    /// # Errors
    /// A node does not get there.
    pub fn reset(&self) -> anyhow::Result<()> {
        self.reset_with("")
    }

    /// The same, but memory goes in clear. Under emulation encryption is most of a migration, so this is for all that is not about it.
    ///
    /// # Errors
    /// A node does not get there.
    pub fn reset_in_clear(&self) -> anyhow::Result<()> {
        self.reset_with("[security]\nin-clear = ['10.99.0.0/24']\n")
    }

    fn reset_with(&self, settings: &str) -> anyhow::Result<()> {
        self.on_both(|node| {
            // A test that failed may have left a migration that stands at a step; it goes on, or its daemon ends it.
            node.ok("rm -f /run/bascule/fault-*")?;
            self.serve(node.nr())
        })?;
        self.on_both(|node| {
            node.until("no migration is open", NO_MIGRATION, LIMIT)?;
            // The daemon of a test of faults has one.
            if !node.run(&format!("[ \"$(<{OPTIONS})\" = \"$(echo {ALLOW})\" ]"))?.success() {
                self.stop_serving(node.nr())?;
                self.serve(node.nr())?;
            }
            for (name, _) in domains(node)? {
                node.ok_for(&format!("bascule destroy {name}"), LIMIT)?;
            }
            Ok(())
        })?;
        self.on_both(|node| {
            node.until("no domain is left", "! xl list | tail -n +3 | grep -qv '^(null)'", LIMIT)?;
            node.ok_for("drbdadm secondary all; drbdadm adjust all", LIMIT)?;
            match node.run(&format!("cat {FILE}"))?.stdout == format!("{CONFIGURATION}{settings}") {
                true => Ok(()),
                false => self.configure(node.nr(), settings),
            }
        })?;
        self.introduce()?;
        self.lab.wait_until_replicated(LIMIT)
    }

    /// The nodes work at the same time, each on a processor of its own.
    fn on_both<T: Send>(&self, work: impl Fn(&Node) -> anyhow::Result<T> + Sync) -> anyhow::Result<[T; 2]> {
        let [first, second] = self.lab.nodes();
        thread::scope(|scope| {
            let second = scope.spawn(|| work(second));
            let first = work(first);
            let second = second.join().unwrap_or_else(|_| bail!("a node's thread panicked"));
            Ok([first?, second?])
        })
    }

    /// Gives a node the lab's configuration and these settings beside it, and its daemon takes them over.
    ///
    /// # Errors
    /// It does not.
    pub fn configure(&self, nr: u8, settings: &str) -> anyhow::Result<()> {
        self.configure_whole(nr, &format!("{CONFIGURATION}{settings}"), "configuration taken over")
    }

    /// Gives a node another configuration, and waits for what its daemon says of it.
    ///
    /// # Errors
    /// It says nothing like it.
    pub fn configure_whole(&self, nr: u8, configuration: &str, said: &str) -> anyhow::Result<()> {
        let node = self.node(nr);
        let lines = node.ok(&format!("wc -l <{LOG}"))?.trim().parse::<u64>()? + 1;
        node.write_file(FILE, 0o644, configuration.as_bytes())?;
        node.ok(&format!("{SERVES}\nserves && kill -HUP $pid"))?;
        node.until(said, &format!("tail -n +{lines} {LOG} | grep -q '{said}'"), LIMIT)
    }

    /// Makes the nodes know each other, unless they do.
    ///
    /// # Errors
    /// They do not get to.
    pub fn introduce(&self) -> anyhow::Result<()> {
        let known = || {
            let known =
                self.on_both(|node| Ok(node.ok("bascule peers")?.contains(&format!("node{} ", 3 - node.nr()))))?;
            anyhow::Ok(known == [true, true])
        };
        if known()? {
            return Ok(());
        }
        let code = self.open_door(2)?;
        self.node(1).ok_for(&format!("bascule pair node2 --code {code}"), LIMIT)?;
        ensure!(known()?, "the nodes do not know each other");
        Ok(())
    }

    /// Opens a node's door for pairing, and gives the code.
    ///
    /// # Errors
    /// No code is shown.
    pub fn open_door(&self, nr: u8) -> anyhow::Result<String> {
        let node = self.node(nr);
        // One that a failed test has left.
        node.run("pkill -TERM -f '^bascule pair --json'")?;
        node.until("the door is closed", "[ ! -e /run/bascule/pairing ]", LIMIT)?;
        node.ok("setsid bascule pair --json </dev/null >/run/pair.out 2>&1 &")?;
        node.until("the code is shown", "[[ $(</run/pair.out) == *code* ]]", LIMIT)?;
        let shown: serde_json::Value = serde_json::from_str(&node.ok("head -n 1 /run/pair.out")?)?;
        Ok(shown["code"].as_str().context("no code")?.to_owned())
    }

    /// Starts the relocation daemon of a node, unless it runs.
    ///
    /// # Errors
    /// It does not listen.
    pub fn serve(&self, nr: u8) -> anyhow::Result<()> {
        self.serve_with(nr, "")
    }

    /// The same, but who may come is as its configuration says.
    ///
    /// # Errors
    /// It does not listen.
    pub fn serve_as_configured(&self, nr: u8) -> anyhow::Result<()> {
        self.start_daemon(nr, "")
    }

    /// The same, with more options.
    ///
    /// # Errors
    /// It does not listen.
    pub fn serve_with(&self, nr: u8, options: &str) -> anyhow::Result<()> {
        self.start_daemon(nr, &format!("{ALLOW} {options}"))
    }

    fn start_daemon(&self, nr: u8, options: &str) -> anyhow::Result<()> {
        let node = self.node(nr);
        let serve = format!(
            "echo {options} >{OPTIONS}; setsid bascule serve {options} </dev/null >>{LOG} 2>&1 & echo $! >{DAEMON}"
        );
        let once = format!("{SERVES}\n[ \"$started\" ] || {{ started=1; serves || {{ {serve}\n}}\n}}");
        node.until("the daemon listens", &format!("{once}\n{LISTENS}\nlistens"), LIMIT)
    }

    /// Ends the relocation daemon of a node.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop_serving(&self, nr: u8) -> anyhow::Result<()> {
        let node = self.node(nr);
        node.ok(&format!("{SERVES}\nserves && kill -TERM $pid || true"))?;
        node.until("the daemon has ended", &format!("{SERVES}\n! serves"), LIMIT)
    }

    /// Creates a domain with our program and waits until it is heard.
    ///
    /// # Errors
    /// It is not created, or not heard.
    pub fn create(&self, guest: Guest, nr: u8) -> anyhow::Result<()> {
        self.node(nr).ok_for(&format!("bascule create {}", guest.file()), LIMIT)?;
        self.heard(guest, nr)
    }

    /// Waits until the domain is heard from a node.
    ///
    /// # Errors
    /// It is not.
    pub fn heard(&self, guest: Guest, nr: u8) -> anyhow::Result<()> {
        let heard = self.lab.witness().wait_for_node(guest.name, nr, LIMIT);
        heard.map(drop).with_context(|| format!("{} is not heard from node{nr}", guest.name))
    }

    /// Waits until the domain is heard anew from a node.
    ///
    /// # Errors
    /// It is not.
    pub fn heard_again(&self, guest: Guest, nr: u8) -> anyhow::Result<()> {
        let now = monotonic_now();
        let heard = self.lab.witness().wait_for(guest.name, LIMIT, |sighting| sighting.node == nr && sighting.at > now);
        heard.map(drop).with_context(|| format!("{} is not heard from node{nr} any more", guest.name))
    }

    /// Moves a domain; what our program printed, whatever its exit code.
    ///
    /// # Errors
    /// It could not be run or did not end.
    pub fn migrate(&self, guest: Guest, from: u8, options: &str) -> anyhow::Result<Output> {
        let to = 3 - from;
        self.node(from).run_for(&format!("bascule migrate {options} {} node{to}", guest.name), MIGRATION_LIMIT)
    }

    /// Shuts a domain down and waits until nothing is left of it.
    ///
    /// # Errors
    /// It does not shut down.
    pub fn shut_down(&self, guest: Guest, nr: u8) -> anyhow::Result<()> {
        self.node(nr).ok_for(&format!("bascule shutdown --wait {}", guest.name), MIGRATION_LIMIT)?;
        wait("nothing is left of the domain", || {
            let roles = self.roles(guest, nr)?;
            Ok(domains(self.node(nr))?.is_empty() && roles.iter().all(|roles| roles.here == "Secondary"))
        })
    }

    /// Exactly one copy of the domain exists, it runs on this node, this node is Primary and the other Secondary on every volume,
    /// nothing is left of a migration, and two Primaries are not allowed.
    ///
    /// # Errors
    /// It is not so.
    pub fn check(&self, guest: Guest, runs_on: u8) -> anyhow::Result<()> {
        let seen = self.on_both(|node| Sight::of(node, guest))?;
        let (here, there) = (self.node(runs_on).name(), self.node(3 - runs_on).name());
        let [running, elsewhere] = [runs_on, 3 - runs_on].map(|nr| &seen[usize::from(nr) - 1]);
        ensure!(
            running.domains.iter().any(|(name, state)| name == guest.name && runs(state)),
            "on {here}: {:?}",
            running.domains
        );
        ensure!(
            running.domains.iter().all(|(name, _)| !name.contains("--")),
            "left over on {here}: {:?}",
            running.domains
        );
        ensure!(
            elsewhere.domains.iter().all(|(name, _)| !name.starts_with(guest.name)),
            "on {there}: {:?}",
            elsewhere.domains
        );
        let expected = Roles { here: "Primary".into(), peer: "Secondary".into() };
        ensure!(running.roles.iter().all(|roles| *roles == expected), "roles on {here}: {:?}", running.roles);
        for (seen, name) in [(running, &here), (elsewhere, &there)] {
            ensure!(seen.two_primaries.contains("no"), "{name}: {}", seen.two_primaries);
            ensure!(seen.records == 0, "{name} has {} open records", seen.records);
        }
        Ok(())
    }

    /// Waits until something is so.
    ///
    /// # Errors
    /// It is not, within a generous limit; or `done` fails.
    pub fn wait(&self, what: &str, done: impl Fn() -> anyhow::Result<bool>) -> anyhow::Result<()> {
        wait(what, done)
    }

    /// What a node's DRBD says of the domain's volumes.
    ///
    /// # Errors
    /// `/proc/drbd` is not as DRBD 8.4 writes it.
    pub fn roles(&self, guest: Guest, nr: u8) -> anyhow::Result<Vec<Roles>> {
        let proc = self.node(nr).ok("cat /proc/drbd")?;
        guest.minors.iter().map(|minor| roles_of(&proc, *minor)).collect()
    }

    /// Checks the file systems of a domain that does not run, on one node: as at every boot the journal may be replayed, and
    /// nothing may be wrong then.
    ///
    /// # Errors
    /// Something is wrong; the error shows what e2fsck says.
    pub fn check_file_systems(&self, guest: Guest, nr: u8) -> anyhow::Result<()> {
        let node = self.node(nr);
        node.ok_for(&format!("drbdadm primary {}", guest.resource), LIMIT)?;
        for minor in guest.minors {
            node.ok_for(
                &format!("{{ e2fsck -fp /dev/drbd{minor} || [ $? = 1 ]; }} && e2fsck -fn /dev/drbd{minor}"),
                LIMIT,
            )?;
        }
        node.ok_for(&format!("drbdadm secondary {}", guest.resource), LIMIT).map(drop)
    }
}

fn wait(what: &str, done: impl Fn() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let deadline = Instant::now() + LIMIT;
    while !done()? {
        if Instant::now() >= deadline {
            bail!("Waited {} s in vain: {what}", LIMIT.as_secs());
        }
        thread::sleep(POLL);
    }
    Ok(())
}
