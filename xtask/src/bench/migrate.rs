//! `cargo xtask bench migrate`: the same domain moved to and fro by `bascule migrate` and by `xl migrate`.

use std::time::Duration;

use anyhow::{Context, ensure};
use bascule_lab::Lab;
use bascule_lab::lan::monotonic_now;
use bascule_lab::pair::{Guest, MIGRATION_LIMIT, Pair, VM0, domains};
use bascule_lab::witness::{Window, Witness};
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::blackout::{Blackout, Heard};
use super::interrupt::Interrupt;
use super::stopwatch::{self, Measured};
use super::table::{Comparison, Report};
use super::ways::{ANSWER_LIMIT, Load, Tools, Way};
use super::{Common, in_the_lab, link, publish, stock};
use crate::lab::push_programs;
use crate::say::say;

/// Move a domain to and fro by `bascule migrate` and by `xl migrate`, and compare
///
/// A paravirtual guest of 128 MiB on a replicated disk is moved between the two nodes of the lab: by `bascule migrate`
/// (never two Primaries, encrypted by the kernel), by the same relayed and in clear, by `bascule migrate --handover dual`, by `xl migrate` over plain TCP with socat as its transport, and
/// by `xl migrate` over ssh; each with an idle guest and with one that rewrites its memory at 2 MiB/s. xl runs with what
/// its users have today: the stock scripts block-drbd and vif-bridge, and a resource that allows two Primaries. Our programs and
/// that setting are back in place at the end, whatever happens.
///
/// The ways take turns, two moves at a time, so that the machine's mood is shared. For each move: the wall time of the command by the
/// clock of the node that it runs on, the downtime as the guest's counter shows it, the bytes that the relocation nic sent,
/// and the throughput of the memory stream; iperf3 over the same link, before and after each turn, says what could be reached.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Moves of each kind; two of each take about a quarter of an hour
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Only these ways, separated by commas [default: all]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WAY", hide_default_value = true, default_values_t = Way::ALL)]
    ways: Vec<Way>,
    /// Only these loads, separated by commas [default: all]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "LOAD", hide_default_value = true, default_values_t = Load::ALL)]
    loads: Vec<Load>,
    #[command(flatten)]
    common: Common,
}

/// The domain that is moved.
const GUEST: Guest = VM0;
/// Moves of one kind in a row: there and back.
const MOVES_IN_A_ROW: u32 = 2;
/// How long the guest may take to be heard at its new place.
const HEARD_LIMIT: Duration = Duration::from_secs(120);
/// Lines of a failed command's output that are shown.
const OUTPUT_LINES_MAX: usize = 15;

/// One move.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Move {
    pub(super) load: Load,
    pub(super) way: Way,
    /// The node that the domain left.
    pub(super) from: u8,
    /// Wall time of the command by the source's clock, in seconds.
    pub(super) total_s: f64,
    #[serde(flatten)]
    pub(super) blackout: Blackout,
    /// The longest time in which the LAN heard nothing of the guest, from the command's start on, in seconds.
    pub(super) longest_silence_s: f64,
    /// Numbers of the counter that the LAN never heard, although the guest counted them.
    pub(super) unheard: usize,
    /// What the source's relocation nic sent, headers included, in MB of 10⁶ bytes.
    pub(super) link_mb: f64,
    /// Throughput of the memory stream, in MB/s.
    pub(super) stream_mb_s: Option<f64>,
    /// What `bascule migrate` itself says of it.
    pub(super) receipt: Option<Value>,
}

/// Measures; what has been measured is printed although it ends early.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut report = Report::default();
    let done = in_the_lab(&arguments.common, |lab| measure(lab, arguments, &mut report));
    let comparison = Comparison::of(report);
    if !comparison.is_empty() {
        publish(&arguments.common, &comparison.text(), &comparison)?;
    }
    done
}

fn measure(lab: &Lab, arguments: &Arguments, report: &mut Report) -> anyhow::Result<()> {
    let pair = Pair::new(lab.clone());
    stock::put_back(&pair, GUEST)?;
    push_programs(lab)?;
    let Arguments { ways, loads, runs, .. } = arguments;
    let bench = Bench { witness: lab.witness(), pair, interrupt: Interrupt::catch()?, ways, loads };
    let done = bench.measure(*runs, report);
    if done.is_err() {
        bench.end_what_runs();
    }
    let cleaned = bench.pair.reset().context("The pair could not be cleaned");
    done.and(cleaned)
}

struct Bench<'a> {
    pair: Pair,
    witness: Witness,
    interrupt: Interrupt,
    ways: &'a [Way],
    loads: &'a [Load],
}

impl Bench<'_> {
    fn measure(&self, runs: u32, report: &mut Report) -> anyhow::Result<()> {
        for moves in turns(runs) {
            self.pair.reset()?;
            self.measure_link(report)?;
            self.turn(Tools::Bascule, moves, report)?;
            self.pair.reset()?;
            self.measure_link(report)?;
            stock::with_stock(&self.pair, GUEST, || {
                let done = self.turn(Tools::Stock, moves, report);
                if done.is_err() {
                    self.end_what_runs();
                }
                done
            })?;
        }
        self.measure_link(report)
    }

    fn measure_link(&self, report: &mut Report) -> anyhow::Result<()> {
        self.interrupt.check()?;
        say("iperf3 over the relocation link, both directions");
        report.iperf_mb_s.extend(link::measure(&self.pair)?);
        Ok(())
    }

    /// Makes a domain on a clean pair and moves it in all ways that these tools have.
    fn turn(&self, tools: Tools, moves: u32, report: &mut Report) -> anyhow::Result<()> {
        let ways = || tools.ways().iter().filter(|way| self.ways.contains(way));
        if ways().next().is_none() {
            return Ok(());
        }
        let mut at = 1;
        self.pair.node(at).ok(&tools.create(GUEST))?;
        self.witness.wait_for_node(GUEST.name, at, HEARD_LIMIT)?;
        for &load in self.loads {
            self.witness.ask(GUEST.name, load.order(), ANSWER_LIMIT)?;
            for &way in ways() {
                for _ in 0..moves {
                    let moved = self.one_move(load, way, at)?;
                    say(&moved.line());
                    report.moves.push(moved);
                    at = 3 - at;
                }
            }
        }
        Ok(())
    }

    fn one_move(&self, load: Load, way: Way, from: u8) -> anyhow::Result<Move> {
        self.interrupt.check()?;
        let (source, destination) = (self.pair.node(from), self.pair.node(3 - from));
        way.prepare(&self.pair, destination)?;
        let begin = monotonic_now();
        let measured = stopwatch::measure(source, &way.command(GUEST, destination), MIGRATION_LIMIT);
        // Ctrl-C ends ssh's client too: what was asked for is worth more than how it ended.
        self.interrupt.check()?;
        let measured = measured?;
        ensure!(
            measured.status == 0,
            "{} from {} ended with {}:\n{}{}",
            way.label(),
            source.name(),
            measured.status,
            last_lines(&measured.output),
            way.far_side(destination)
        );
        self.settle(from)?;
        self.tell(load, way, from, begin, &measured)
    }

    /// The guest is heard from its new place and nothing of it is left at the old one, so that the next move begins like this one.
    fn settle(&self, from: u8) -> anyhow::Result<()> {
        self.witness.wait_for_node(GUEST.name, 3 - from, HEARD_LIMIT)?;
        self.pair.wait("the source is clean", || {
            let roles = self.pair.roles(GUEST, from)?;
            Ok(domains(self.pair.node(from))?.is_empty() && roles.iter().all(|roles| roles.here == "Secondary"))
        })
    }

    fn tell(&self, load: Load, way: Way, from: u8, begin: Duration, measured: &Measured) -> anyhow::Result<Move> {
        let story = self.witness.story(GUEST.name, Window::since(begin));
        ensure!(story.doubled().is_none(), "{}: two copies ran: {:?}", way.label(), story.doubled());
        let heard: Vec<Heard> = story
            .sightings()
            .iter()
            .map(|sighting| Heard { at: sighting.at, node: sighting.node, uptime_ms: sighting.report.uptime_ms })
            .collect();
        let blackout = Blackout::between(&heard, from, 3 - from)
            .with_context(|| format!("{}: the guest was not heard before and after it", way.label()))?;
        Ok(Move {
            load,
            way,
            from,
            total_s: measured.total_s,
            blackout,
            longest_silence_s: story.longest_silence().length().as_secs_f64(),
            unheard: story.missing().len(),
            link_mb: measured.link_bytes / 1e6,
            stream_mb_s: measured.stream_mb_s,
            receipt: receipt(&measured.output),
        })
    }

    /// A migration whose connection to us broke goes on in its node.
    fn end_what_runs(&self) {
        for node in self.pair.lab().nodes() {
            if let Err(error) = stopwatch::end(node) {
                say(&format!("{error:#}"));
            }
        }
    }
}

impl Move {
    fn line(&self) -> String {
        let Self { load, way, from, total_s, blackout, link_mb, .. } = self;
        format!(
            "{} from node{from}, {}: {total_s:.1} s, downtime {:.2} s, {link_mb:.0} MB",
            way.label(),
            load.label(),
            blackout.downtime_s
        )
    }
}

/// How many moves of each kind there are in each turn.
fn turns(runs: u32) -> impl Iterator<Item = u32> {
    (0..runs).step_by(MOVES_IN_A_ROW as usize).map(move |done| (runs - done).min(MOVES_IN_A_ROW))
}

/// The last line of `bascule migrate --json`.
fn receipt(output: &str) -> Option<Value> {
    let mut last: Value = serde_json::from_str(output.lines().last()?).ok()?;
    last.get_mut("receipt").map(Value::take)
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(OUTPUT_LINES_MAX)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_go_there_and_back() {
        assert_eq!(turns(5).collect::<Vec<_>>(), [2, 2, 1]);
        assert_eq!(turns(2).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn the_receipt_is_in_the_last_line() {
        let output = "{\"event\":\"suspended\"}\n{\"event\":\"moved\",\"receipt\":{\"rounds\":3}}\n";
        assert_eq!(receipt(output), Some(serde_json::json!({"rounds": 3})));
        assert_eq!(receipt("Migration successful.\n"), None);
    }
}
