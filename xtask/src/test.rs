//! `cargo xtask test`: everything that can be tested on this machine, from the cheapest to the dearest.

mod programs;
mod report;

use std::time::{Duration, Instant, SystemTime};

use bascule_lab::{Lab, Options, ensure_packages, ensure_supported};
use clap::Args;

use crate::fuzz;
use crate::lab;
use crate::say::{answer, say};
use crate::uml;
use programs::{Program, cargo, cargo_with};
use report::{Counts, Report};

/// The words after `test`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Leave the lab running.
    #[arg(long)]
    keep: bool,
    /// Nothing but the tests in the lab.
    #[arg(long)]
    only_lab: bool,
    /// Which cells of the fault matrix are tried: sample (a fixed part and random ones), all, none, or a part of their names.
    #[arg(long, value_name = "CELLS", default_value = "sample")]
    faults: String,
    /// Only every Nth of these cells, from the Kth on: all of them take hours, and K = 1 to N can be tried at different times.
    #[arg(long, value_name = "K/N", value_parser = part)]
    part: Option<String>,
    /// Nothing but N migrations to and fro under load, about half of them with a random fault.
    #[arg(long, value_name = "N", conflicts_with = "filters")]
    soak: Option<u32>,
    /// Begin nothing new after so many minutes; what was not begun is said, and is counted as skipped. The tests in the lab
    /// begin with another one each time.
    #[arg(long, value_name = "MINUTES")]
    within: Option<u64>,
    /// Replays the random faults of a run that printed this.
    #[arg(long)]
    seed: Option<u64>,
    /// Only the tests in the lab whose names contain one of these.
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
}

/// `2/8`, as `tests/faults.rs` takes it.
fn part(text: &str) -> Result<String, String> {
    let numbers =
        text.split_once('/').and_then(|(part, of)| Some((part.parse::<u32>().ok()?, of.parse::<u32>().ok()?)));
    match numbers {
        Some((part, of)) if (1..=of).contains(&part) => Ok(text.to_owned()),
        _ => Err("it is not K/N with K from 1 to N, such as 2/8".into()),
    }
}

/// Runs all of it; the first part that fails ends it. The last lines say what became of each part.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let until = arguments.within.map(|minutes| Instant::now() + Duration::from_secs(60 * minutes));
    let mut report = Report::new(until);
    let done = run_parts(arguments, &mut report);
    answer(&report.text());
    done
}

fn run_parts(arguments: &Arguments, report: &mut Report) -> anyhow::Result<()> {
    let only_lab = arguments.only_lab || arguments.soak.is_some();
    if !only_lab {
        report.part("format", || cargo(&["fmt", "--all", "--check"]))?;
    }
    if let Err(reason) = ensure_supported() {
        report.skip("all that needs Debian's packages", &reason);
        return Ok(());
    }
    ensure_packages(say)?;
    if !only_lab {
        report.part("lints", || cargo(LINTS))?;
        report.part("unit tests", || cargo(&["test", "--quiet", "--workspace"]))?;
        match nix::unistd::Uid::effective().is_root() {
            true => report.part("firewalls of this kernel", || cargo(FIREWALL))?,
            false => report.skip("firewalls of this kernel", &anyhow::anyhow!("network namespaces need root")),
        }
        report.part("DRBD's files, by drbdadm", || cargo_with(DRBD_FILES, &[("PATH", uml::path_with_drbdadm()?)]))?;
        report.part("DRBD in user-mode Linux", || {
            let mut counts = Counts::default();
            uml::run(&mut |line| counts.add(line)).map(|()| counts)
        })?;
    }
    let until = report.until();
    report.part("tests in the lab", || in_the_lab(arguments, until))?;
    match only_lab {
        true => Ok(()),
        // Last, for its corpora have been replayed among the unit tests.
        false => report.part("fuzzing", || fuzz::run_short().map(|()| Counts::default())),
    }
}

const LINTS: &[&str] = &["clippy", "--quiet", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"];
/// Real rulesets and real connections, in network namespaces.
const FIREWALL: &[&str] = &["test", "--quiet", "--test", "firewall", "--", "--ignored"];

/// What drbdadm says of DRBD's configuration files, compared with what it said.
const DRBD_FILES: &[&str] = &["test", "--quiet", "--package", "drbd-conf", "--test", "oracle", "--", "--ignored"];

/// A lab that ran before is used and left running.
fn in_the_lab(arguments: &Arguments, until: Option<Instant>) -> anyhow::Result<Counts> {
    let ran_before = Lab::attach().is_ok();
    let lab = lab::start(Options::new(say))?;
    let tested = lab::push_programs(&lab).and_then(|()| run_lab_tests(arguments, until));
    if tested.is_err() {
        lab.collect_logs("failed").map(|logs| say(&format!("logs of the nodes: {}", logs.display())))?;
    }
    if !ran_before && !arguments.keep {
        Lab::down(None)?;
    }
    tested
}

/// Test targets called `lab` are made of tests that need the lab, and are ignored otherwise.
fn run_lab_tests(arguments: &Arguments, until: Option<Instant>) -> anyhow::Result<Counts> {
    let mut variables: Vec<(&str, String)> =
        arguments.seed.map(|seed| ("BASCULE_SEED", seed.to_string())).into_iter().collect();
    let faults =
        |variables: &[(&str, String)], test: &str| Program::of("faults")?.run(variables, &[test.to_owned()], until);
    if let Some(count) = arguments.soak {
        variables.push(("BASCULE_SOAK", count.to_string()));
        return faults(&variables, "soak");
    }
    let faults_follow = arguments.filters.is_empty() && arguments.faults != "none";
    let share = if faults_follow { SHARE_OF_FAULTS } else { Duration::ZERO };
    let until_faults = until.and_then(|until| until.checked_sub(share));
    let mut counts = Program::of("lab")?.run(&variables, &arguments.filters, until_faults)?;
    if faults_follow {
        variables.push(("BASCULE_FAULTS", arguments.faults.clone()));
        variables.extend(arguments.part.clone().map(|part| ("BASCULE_PART", part)));
        variables.extend(until.map(|until| ("BASCULE_UNTIL", unix_seconds(until).to_string())));
        counts += faults(&variables, "whatever")?;
    }
    Ok(counts)
}

/// What the fault matrix has of the time of `--within`, however long the tests before it take.
const SHARE_OF_FAULTS: Duration = Duration::from_secs(12 * 60);

/// The same moment for another process.
fn unix_seconds(until: Instant) -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (now + until.saturating_duration_since(Instant::now())).as_secs()
}
