//! `cargo xtask bench roles`: a promotion and a demotion by drbd-nl and by drbdadm.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use bascule_lab::node::quoted;
use bascule_lab::{Lab, Node};
use clap::Args;
use comfy_table::CellAlignment;
use serde::Serialize;

use super::figures::Summary;
use super::table::{table, with_ends};
use super::{Common, examples, in_the_lab, publish};
use crate::say::say;

/// Promote and demote a resource by drbd-nl and by drbdadm, and compare
///
/// A resource of one volume that no domain uses is made Primary and Secondary again on one node of the lab, alternately by
/// `drbdadm primary` and `drbdadm secondary` and by a program that does the same through drbd-nl. Measured by the node's clock is the
/// pair of commands, each from the shell's fork to its end; beside it a pair of programs that do nothing, because most of that is
/// the start of a program; and, for drbd-nl, also the pair of requests within one process, which is what a migration pays.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Pairs of each kind
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    #[command(flatten)]
    common: Common,
}

/// A resource that the other tests and the demo leave alone.
const RESOURCE: &str = "r2";
/// The programs: drbd-nl's examples, and where they lie in the node.
const ROLE: (&str, &str) = ("role", "/run/bench-role");
const ROLE_PAIRS: (&str, &str) = ("role_pairs", "/run/bench-role-pairs");
/// How long one pair may take on a machine that is far too busy.
const PAIR_LIMIT: Duration = Duration::from_secs(10);

/// What was measured, in milliseconds.
#[derive(Debug, Serialize)]
struct Pairs {
    drbd_nl_ms: Vec<f64>,
    drbdadm_ms: Vec<f64>,
    nothing_ms: Vec<f64>,
    drbd_nl_in_process_ms: Vec<f64>,
}

/// Measures and prints.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let programs = examples::build("drbd-nl", &[ROLE.0, ROLE_PAIRS.0])?;
    let pairs = in_the_lab(&arguments.common, |lab| measure(lab, &programs, arguments.runs))?;
    publish(&arguments.common, &pairs.text()?, &pairs)
}

fn measure(lab: &Lab, programs: &HashMap<String, PathBuf>, runs: u32) -> anyhow::Result<Pairs> {
    let node = lab.node(1);
    for (name, path) in [ROLE, ROLE_PAIRS] {
        node.copy_to(programs.get(name).with_context(|| format!("{name} was not built"))?, path, 0o755)?;
    }
    node.ok(&format!("drbdadm secondary {RESOURCE}")).context("The resource is in use")?;
    say(&format!("{runs} pairs by each program, in turn"));
    let done = measure_in(node, runs);
    node.ok(&format!("drbdadm secondary {RESOURCE}; rm -f {} {}", ROLE.1, ROLE_PAIRS.1))?;
    done
}

fn measure_in(node: &Node, runs: u32) -> anyhow::Result<Pairs> {
    let limit = PAIR_LIMIT * runs * 2;
    let said = node.ok_for(&format!("bash -c {}", quoted(&script(runs))), limit)?;
    let [drbd_nl_ms, drbdadm_ms, nothing_ms] = by_program(&said).context("The node's shell measured nothing")?;
    let said = node.ok_for(&format!("{} {RESOURCE} {runs}", ROLE_PAIRS.1), limit)?;
    let in_process: Result<Vec<f64>, _> = said.lines().map(str::parse).collect();
    Ok(Pairs { drbd_nl_ms, drbdadm_ms, nothing_ms, drbd_nl_in_process_ms: in_process? })
}

fn script(runs: u32) -> String {
    format!(
        r#"set -e
for ((run = 0; run < {runs}; run++)); do
    t0=$EPOCHREALTIME
    {role} primary {RESOURCE}
    {role} secondary {RESOURCE}
    t1=$EPOCHREALTIME
    drbdadm primary {RESOURCE}
    drbdadm secondary {RESOURCE}
    t2=$EPOCHREALTIME
    /bin/true
    /bin/true
    t3=$EPOCHREALTIME
    echo "$t0 $t1 $t2 $t3"
done"#,
        role = ROLE.1
    )
}

/// Milliseconds of the pairs of drbd-nl, drbdadm and true, from the times between them.
fn by_program(said: &str) -> Option<[Vec<f64>; 3]> {
    let mut pairs = [const { Vec::new() }; 3];
    for line in said.lines() {
        let times: Vec<f64> = line.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
        let steps: [f64; 3] =
            times.windows(2).map(|pair| (pair[1] - pair[0]) * 1e3).collect::<Vec<_>>().try_into().ok()?;
        pairs.iter_mut().zip(steps).for_each(|(pairs, step)| pairs.push(step));
    }
    Some(pairs)
}

impl Pairs {
    fn text(&self) -> anyhow::Result<String> {
        let of = |values: &[f64]| Summary::of(values.iter().copied()).context("Nothing was measured");
        let drbdadm = of(&self.drbdadm_ms)?;
        let rows = [
            ("drbdadm, two processes", drbdadm),
            ("drbd-nl, two processes", of(&self.drbd_nl_ms)?),
            ("nothing (true), two processes", of(&self.nothing_ms)?),
            ("drbd-nl, within one process", of(&self.drbd_nl_in_process_ms)?),
        ];
        let mut table = table(["primary + secondary by", "ms", "of drbdadm's", "n"].into_iter());
        for (name, summary) in rows {
            let ratio = summary.ratio_to(drbdadm).map_or("-".to_owned(), |ratio| format!("{ratio:.3}"));
            table.add_row(vec![name.to_owned(), with_ends(summary, 1), ratio, summary.n.to_string()]);
        }
        table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
        Ok(format!("{table}\n\nMedians; in brackets the smallest and the largest."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_between_are_of_one_program_each() {
        let said = "10.000 10.025 10.525 10.530\n11.000 11.050 12.000 12.020\n";
        let [drbd_nl, drbdadm, nothing] = by_program(said).expect("times");
        for (found, expected) in [(drbd_nl[0], 25.0), (drbdadm[1], 950.0), (nothing[1], 20.0)] {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
        assert_eq!(by_program("10.0 11.0\n"), None);
    }

    #[test]
    fn the_table_compares_with_drbdadm() {
        let pairs = Pairs {
            drbd_nl_ms: vec![50.0],
            drbdadm_ms: vec![1000.0, 1000.0],
            nothing_ms: vec![30.0],
            drbd_nl_in_process_ms: vec![4.0],
        };
        let text = pairs.text().expect("a table");
        assert!(text.contains("0.050") && text.contains("0.004"), "{text}");
    }
}
