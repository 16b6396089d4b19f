//! `cargo xtask test`: everything that can be tested on this machine, from the cheapest to the dearest.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bascule_lab::layout::workspace;
use bascule_lab::{Lab, Options, ensure_packages, ensure_supported};
use clap::Args;

use crate::fuzz;
use crate::lab;
use crate::say::{answer, say};
use crate::uml;

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
    /// Nothing but N migrations to and fro under load, about half of them with a random fault.
    #[arg(long, value_name = "N", conflicts_with = "filters")]
    soak: Option<u32>,
    /// Replays the random faults of a run that printed this.
    #[arg(long)]
    seed: Option<u64>,
    /// Only the tests in the lab whose names contain one of these.
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
}

/// Runs all of it; the first failure ends it. The last lines say what became of each part.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut report = Report::default();
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
        report.part("lints", || {
            cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"])
        })?;
        report.part("unit tests", || cargo(&["test", "--quiet", "--workspace"]))?;
        match nix::unistd::Uid::effective().is_root() {
            true => report.part("firewalls of this kernel", || cargo(FIREWALL))?,
            false => report.skip("firewalls of this kernel", &anyhow::anyhow!("network namespaces need root")),
        }
        report.part("DRBD's files, by drbdadm", || cargo_with(DRBD_FILES, &[("PATH", uml::path_with_drbdadm()?)]))?;
        report.part("fuzzing", || fuzz::run_short().map(|()| Counts::default()))?;
        report.part("DRBD in user-mode Linux", || {
            let mut counts = Counts::default();
            uml::run(&mut |line| counts.add(line)).map(|()| counts)
        })?;
    }
    report.part("tests in the lab", || in_the_lab(arguments))
}

/// Real rulesets and real connections, in network namespaces.
const FIREWALL: &[&str] = &["test", "--quiet", "--test", "firewall", "--", "--ignored"];

/// What drbdadm says of DRBD's configuration files, compared with what it said.
const DRBD_FILES: &[&str] = &["test", "--quiet", "--package", "drbd-conf", "--test", "oracle", "--", "--ignored"];

/// A lab that ran before is used and left running.
fn in_the_lab(arguments: &Arguments) -> anyhow::Result<Counts> {
    let ran_before = Lab::attach().is_ok();
    let lab = lab::start(Options::new(say))?;
    let tested = lab::push_programs(&lab).and_then(|()| run_lab_tests(arguments));
    if tested.is_err() {
        lab.collect_logs("failed").map(|logs| say(&format!("logs of the nodes: {}", logs.display())))?;
    }
    if !ran_before && !arguments.keep {
        Lab::down(None)?;
    }
    tested
}

/// Test targets of that name are made of tests that need the lab, one at a time, and are ignored otherwise.
fn run_lab_tests(arguments: &Arguments) -> anyhow::Result<Counts> {
    let filters: Vec<&str> = arguments.filters.iter().map(String::as_str).collect();
    let mut counts = Counts::default();
    if let Some(count) = arguments.soak {
        return lab_target("faults", &["soak"], &[("BASCULE_SOAK", count.to_string())], arguments);
    }
    counts += lab_target("lab", &filters, &[], arguments)?;
    if filters.is_empty() && arguments.faults != "none" {
        counts += lab_target("faults", &["whatever"], &[("BASCULE_FAULTS", arguments.faults.clone())], arguments)?;
    }
    Ok(counts)
}

fn lab_target(
    target: &str,
    filters: &[&str],
    variables: &[(&str, String)],
    arguments: &Arguments,
) -> anyhow::Result<Counts> {
    let words = ["test", "--workspace", "--test", target, "--", "--ignored", "--test-threads=1", "--nocapture"];
    let seed = arguments.seed.map(|seed| ("BASCULE_SEED", seed.to_string()));
    let variables: Vec<(&str, String)> = variables.iter().cloned().chain(seed).collect();
    cargo_with(&words.into_iter().chain(filters.iter().copied()).collect::<Vec<_>>(), &variables)
}

/// Runs cargo; what it prints goes on to the screen, and the tests in it are counted.
fn cargo(arguments: &[&str]) -> anyhow::Result<Counts> {
    cargo_with(arguments, &[])
}

fn cargo_with(arguments: &[&str], variables: &[(&str, String)]) -> anyhow::Result<Counts> {
    let mut child = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(workspace())
        .args(arguments)
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cargo cannot be started")?;
    let mut counts = Counts::default();
    for line in BufReader::new(child.stdout.take().context("The child has no stdout")?).lines() {
        let line = line?;
        answer(&line);
        counts.add(&line);
    }
    let status = child.wait()?;
    ensure!(status.success(), "cargo {} ended with {status}", arguments.join(" "));
    Ok(counts)
}

/// Tests, by what became of them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    passed: u32,
    ignored: u32,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.passed += other.passed;
        self.ignored += other.ignored;
    }
}

impl Counts {
    /// `test result: ok. 3 passed; 0 failed; 1 ignored; …`
    fn add(&mut self, line: &str) {
        let Some(rest) = line.strip_prefix("test result: ok. ") else { return };
        for (count, kind) in rest.split("; ").filter_map(|part| part.split_once(' ')) {
            let count: u32 = count.parse().unwrap_or(0);
            match kind {
                "passed" => self.passed += count,
                "ignored" => self.ignored += count,
                _ => {}
            }
        }
    }
}

/// What became of each part, for the last lines.
#[derive(Debug, Default)]
struct Report {
    lines: Vec<String>,
    total: Counts,
    failed: bool,
    skipped: u32,
}

impl Report {
    fn part(&mut self, name: &str, run: impl FnOnce() -> anyhow::Result<Counts>) -> anyhow::Result<()> {
        say(name);
        let start = Instant::now();
        let done = run();
        let (word, counts) = match &done {
            Ok(counts) => ("ok", *counts),
            Err(_) => ("FAILED", Counts::default()),
        };
        self.failed |= done.is_err();
        self.total.passed += counts.passed;
        self.total.ignored += counts.ignored;
        self.lines.push(line(name, word, start.elapsed(), counts));
        done.map(drop).with_context(|| format!("{name} failed"))
    }

    fn skip(&mut self, name: &str, reason: &anyhow::Error) {
        self.skipped += 1;
        self.lines.push(format!("{name}: skipped, {reason:#}"));
    }

    fn text(&self) -> String {
        let word = if self.failed { "FAILED" } else { "ok" };
        let Counts { passed, ignored } = self.total;
        format!(
            "\n{}\ntest result: {word}. {passed} passed; {ignored} left to another part; {} parts skipped",
            self.lines.join("\n"),
            self.skipped
        )
    }
}

fn line(name: &str, word: &str, took: Duration, counts: Counts) -> String {
    let mut text = format!("{name:<26} {word:<7} {:5} s", took.as_secs());
    if counts != Counts::default() {
        let _ = write!(text, "  {} passed", counts.passed);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_counted_over_all_programs() {
        let mut counts = Counts::default();
        counts.add("running 4 tests");
        counts.add("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s");
        counts.add("test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s");
        assert_eq!(counts, Counts { passed: 5, ignored: 1 });
    }

    #[test]
    fn a_failure_is_in_the_last_line() {
        let mut report = Report::default();
        report.part("one", || Ok(Counts { passed: 2, ignored: 0 })).unwrap();
        report.part("two", || anyhow::bail!("no")).unwrap_err();
        let text = report.text();
        assert!(text.ends_with("test result: FAILED. 2 passed; 0 left to another part; 0 parts skipped"), "{text}");
    }
}
