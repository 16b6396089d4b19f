//! One cell of the matrix: a handover, a step, a blow.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bascule::fault::Step;
use bascule::protocol::Handover;
use bascule_lab::pair::{Pair, VM0, domains};
use bascule_lab::witness::Window;
use bascule_lab::{Node, Order, lan};

use crate::blow::Blow;

/// How long a step may take to be reached, and a migration to be resolved, on a machine that is far too busy.
const LIMIT: Duration = Duration::from_secs(240);
/// The process id of the command that migrates.
const MIGRATE: &str = "/run/lab-migrate";

/// Which handover, where, and what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cell {
    handover: Handover,
    step: Step,
    blow: Blow,
}

/// What came of a cell.
pub(crate) struct Row {
    cell: Cell,
    /// Where the domain runs, in words; or what was wrong.
    pub(crate) outcome: anyhow::Result<Seen>,
}

/// What was seen.
pub(crate) struct Seen {
    happened: String,
    unavailable: Duration,
    resolved: Duration,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let handover = match self.handover {
            Handover::Single => "single",
            Handover::Dual => "dual",
        };
        write!(f, "{handover} {} {}", self.step.name(), self.blow.name())
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cell = self.cell.to_string();
        match &self.outcome {
            Ok(Seen { happened, unavailable, resolved }) => {
                write!(
                    f,
                    "{cell:<48}{:>12.1} s{:>10.1} s   {happened}",
                    unavailable.as_secs_f64(),
                    resolved.as_secs_f64()
                )
            }
            Err(error) => write!(f, "{cell:<48}FAILED: {error:#}"),
        }
    }
}

impl Cell {
    pub(crate) fn all() -> Vec<Cell> {
        let handovers = [Handover::Single, Handover::Dual];
        let cells = handovers.into_iter().flat_map(|handover| {
            let of_step = move |step| Blow::ALL.map(|blow| Cell { handover, step, blow });
            Step::ALL.into_iter().flat_map(of_step)
        });
        cells.collect()
    }

    pub(crate) fn run(self, pair: &Pair) -> Row {
        Row { cell: self, outcome: self.try_run(pair) }
    }

    fn try_run(self, pair: &Pair) -> anyhow::Result<Seen> {
        let from = whereabouts(pair)?;
        let since = lan::monotonic_now();
        self.begin(pair, from)?;
        self.await_step(pair, from)?;
        self.blow.strike(pair, from).context("striking")?;
        let_go_on(pair);
        std::thread::sleep(self.blow.outage());
        self.blow.mend(pair).context("mending")?;
        let mended = Instant::now();
        await_resolution(pair)?;
        let resolved = mended.elapsed();
        let happened = self.inspect(pair, from)?;
        let story = pair.lab().witness().story(VM0.name, Window::since(since));
        ensure!(story.doubled().is_none(), "two copies: {:?}", story.doubled());
        ensure!(story.lost_writes().is_empty(), "lost: {:?}", story.lost_writes());
        let errors = story.errors();
        ensure!(errors.memory == 0 && errors.io == 0 && errors.holes == 0, "{errors:?}");
        Ok(Seen { happened, unavailable: story.longest_silence().length(), resolved })
    }

    /// Starts the migration, and the daemon of the end that is to stop at the step.
    fn begin(self, pair: &Pair, from: u8) -> anyhow::Result<()> {
        let to = 3 - from;
        let fault = format!("--fail-at {}:hang", self.step.name());
        let (source, destination) =
            if self.step.name().starts_with("s-") { (fault.as_str(), "") } else { ("", fault.as_str()) };
        for nr in [from, to] {
            pair.node(nr).ok("rm -f /run/bascule/fault-*")?;
        }
        pair.stop_serving(to)?;
        pair.serve_with(to, destination)?;
        let handover = match self.handover {
            Handover::Single => "single",
            Handover::Dual => "dual",
        };
        let migrate = format!(
            "setsid bascule migrate --handover {handover} {source} {} node{to} </dev/null >/run/migrate.log 2>&1 & echo $! >{MIGRATE}",
            VM0.name
        );
        pair.node(from).ok(&migrate).map(drop)
    }

    fn await_step(self, pair: &Pair, from: u8) -> anyhow::Result<()> {
        let nr = if self.step.name().starts_with("s-") { from } else { 3 - from };
        let announced = format!("[ -e /run/bascule/fault-{} ]", self.step.name());
        pair.node(nr).until("the step is reached", &announced, LIMIT).with_context(|| {
            let log =
                pair.node(from).run("cat /run/migrate.log").map_or_else(|error| error.to_string(), |log| log.stdout);
            format!("the migration says: {log}")
        })
    }

    /// Exactly one copy runs, everything else is as before; or the domain has ended with its host and can be started again.
    fn inspect(self, pair: &Pair, from: u8) -> anyhow::Result<String> {
        pair.lab().wait_until_replicated(LIMIT)?;
        let running = running_on(pair)?;
        match (running.as_slice(), self.blow.off(from)) {
            ([nr], _) => {
                pair.check(VM0, *nr)?;
                pair.heard_again(VM0, *nr)?;
                Ok(if *nr == from { "runs at the source".into() } else { "runs at the destination".into() })
            }
            ([], Some(_)) => {
                for nr in [from, 3 - from] {
                    ensure!(domains(pair.node(nr))?.is_empty(), "left on node{nr}: {:?}", domains(pair.node(nr))?);
                }
                pair.create(VM0, from)?;
                pair.check(VM0, from)?;
                under_load(pair)?;
                Ok("ended with its host; started again".into())
            }
            (several, _) => bail!("it runs on {several:?}"),
        }
    }
}

/// A migration without a fault, to wherever the domain is not.
pub(crate) fn migrate_plainly(pair: &Pair) -> anyhow::Result<()> {
    let (from, since) = (whereabouts(pair)?, lan::monotonic_now());
    let output = pair.migrate(VM0, from, "")?;
    ensure!(output.success(), "{}{}", output.stdout, output.stderr);
    pair.check(VM0, 3 - from)?;
    pair.heard_again(VM0, 3 - from)?;
    let story = pair.lab().witness().story(VM0.name, Window::since(since));
    ensure!(story.doubled().is_none() && story.lost_writes().is_empty(), "{:?}", story.doubled());
    Ok(())
}

/// The node that the domain runs on; it is started if it does not run.
fn whereabouts(pair: &Pair) -> anyhow::Result<u8> {
    match running_on(pair)?.as_slice() {
        [nr] => Ok(*nr),
        [] => {
            pair.create(VM0, 1)?;
            under_load(pair)?;
            Ok(1)
        }
        several => bail!("before the cell it runs on {several:?}"),
    }
}

/// The guest rewrites its memory at this rate, in KiB/s.
const DIRTY_KIB_S: u64 = 512;

fn under_load(pair: &Pair) -> anyhow::Result<()> {
    pair.lab().witness().ask(VM0.name, Order::Dirty(DIRTY_KIB_S), LIMIT).map(drop)
}

fn running_on(pair: &Pair) -> anyhow::Result<Vec<u8>> {
    let mut found = Vec::new();
    for node in pair.lab().nodes() {
        if domains(node)?.iter().any(|(name, letters)| name == VM0.name && !letters.contains(['p', 's', 'c', 'd'])) {
            found.push(node.nr());
        }
    }
    Ok(found)
}

/// Ends the hang, on the nodes that are on.
fn let_go_on(pair: &Pair) {
    for node in pair.lab().nodes() {
        if node.is_on() {
            // A node whose links are cut still has the control network.
            drop(node.run("rm -f /run/bascule/fault-*"));
        }
    }
}

/// No journal and no record is open on either node, and nobody migrates.
fn await_resolution(pair: &Pair) -> anyhow::Result<()> {
    let nobody = format!("! {{ read -r pid <{MIGRATE} && kill -0 $pid; }} 2>/dev/null");
    let resolved = format!(
        "shopt -s nullglob; open=(/var/lib/bascule/*.journal /run/bascule/migration-*); (( ${{#open[@]}} == 0 )) && {nobody}"
    );
    pair.lab().nodes().iter().try_for_each(|node| node.until("it is resolved", &resolved, LIMIT)).with_context(|| {
        let seen = |node: &Node| {
            let look = "ls /var/lib/bascule/*.journal /run/bascule/migration-*; pgrep -af '^bascule'; bascule recover --dry-run";
            let said = node.run_for(&format!("{{ {look}; }} 2>&1"), LIMIT);
            format!("{}: {}", node.name(), said.map_or_else(|error| error.to_string(), |said| said.stdout))
        };
        pair.lab().nodes().each_ref().map(seen).join("\n")
    })
}

/// After a cell that failed: no journal, no domain.
pub(crate) fn clean_up(pair: &Pair) -> anyhow::Result<()> {
    Blow::BothCut.mend(pair)?;
    for node in pair.lab().nodes() {
        node.run(
            "pkill -KILL -x bascule; rm -f /var/lib/bascule/*.journal /var/lib/bascule/*.new /run/bascule/fault-*",
        )?;
    }
    for node in pair.lab().nodes() {
        for (name, _) in domains(node)? {
            node.run_for(&format!("bascule destroy {name}"), LIMIT)?;
        }
        node.run("drbdadm secondary all; drbdadm adjust all")?;
    }
    pair.reset_in_clear()
}
