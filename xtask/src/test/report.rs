//! What became of each part, for the last lines.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::say::say;

/// Tests, by what became of them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) passed: u32,
    pub(super) ignored: u32,
    /// There was no time for them, or they cannot be here: the line of each says why.
    pub(super) skipped: u32,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.passed += other.passed;
        self.ignored += other.ignored;
        self.skipped += other.skipped;
    }
}

impl Counts {
    /// `test result: ok. 3 passed; 0 failed; 1 ignored; …`; and `SKIPPED: …`, what a test has left out.
    pub(super) fn add(&mut self, line: &str) {
        self.skipped += u32::from(line.starts_with("SKIPPED: "));
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

/// Some tests of a part failed; the others count all the same.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) tests: Vec<String>,
    pub(super) counts: Counts,
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (failed, passed) = (self.tests.len(), self.counts.passed);
        write!(f, "{failed} tests failed, {passed} passed; failed: {}", self.tests.join(", "))
    }
}

impl std::error::Error for Failed {}

/// The parts so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    until: Option<Instant>,
    lines: Vec<String>,
    total: Counts,
    failed: bool,
    skipped: u32,
}

impl Report {
    /// No part is begun after a moment.
    pub(super) fn new(until: Option<Instant>) -> Self {
        Self { until, ..Self::default() }
    }

    /// When nothing new is to be begun any more.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Runs a part, if there is time.
    pub(super) fn part(&mut self, name: &str, run: impl FnOnce() -> anyhow::Result<Counts>) -> anyhow::Result<()> {
        if self.until.is_some_and(|until| Instant::now() >= until) {
            self.skip(name, &anyhow::anyhow!("the time of --within is over"));
            return Ok(());
        }
        say(name);
        let start = Instant::now();
        let done = run();
        let (word, counts) = match &done {
            Ok(counts) => ("ok", *counts),
            Err(error) => {
                ("FAILED", error.downcast_ref().map_or_else(Counts::default, |failed: &Failed| failed.counts))
            }
        };
        self.failed |= done.is_err();
        self.total += counts;
        self.lines.push(line(name, word, start.elapsed(), counts));
        done.map(drop).with_context(|| format!("{name} failed"))
    }

    /// A part that cannot run here.
    pub(super) fn skip(&mut self, name: &str, reason: &anyhow::Error) {
        self.skipped += 1;
        self.lines.push(format!("{name}: skipped, {reason:#}"));
    }

    /// The last lines.
    pub(super) fn text(&self) -> String {
        let word = if self.failed { "FAILED" } else { "ok" };
        let Counts { passed, ignored, skipped } = self.total;
        format!(
            "\n{}\ntest result: {word}. {passed} passed; {ignored} left to another part; {skipped} skipped; {} parts skipped",
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
    if counts.skipped > 0 {
        let _ = write!(text, ", {} skipped: see why above", counts.skipped);
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
        counts.add("SKIPPED: single s-ready source-off: the time is over");
        assert_eq!(counts, Counts { passed: 5, ignored: 1, skipped: 1 });
    }

    #[test]
    fn a_failure_is_in_the_last_line() {
        let mut report = Report::default();
        report.part("one", || Ok(Counts { passed: 2, ..Counts::default() })).unwrap();
        report.part("two", || anyhow::bail!("no")).unwrap_err();
        let counts = Counts { passed: 3, ..Counts::default() };
        report.part("three", || anyhow::bail!(Failed { tests: vec!["a".into()], counts })).unwrap_err();
        let text = report.text();
        assert!(
            text.ends_with("test result: FAILED. 5 passed; 0 left to another part; 0 skipped; 0 parts skipped"),
            "{text}"
        );
    }

    #[test]
    fn what_was_not_begun_is_said() {
        let mut report = Report::new(Some(Instant::now()));
        report.part("late", || unreachable!("it is too late")).unwrap();
        let text = report.text();
        assert!(text.contains("late: skipped") && text.ends_with("1 parts skipped"), "{text}");
    }
}
