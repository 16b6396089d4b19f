//! `cargo xtask fuzz`: looks for bytes that break what takes bytes from elsewhere.
//!
//! The engine is libFuzzer. The compiler's own instrumentation guides it, which a stable compiler has, too; it has no address sanitizer,
//! so that an error of memory in C code shows only where it crashes. What is kept is in `fuzz/corpus/TARGET`; inputs that reach something
//! new join it with `--keep`, as few as will do.

use std::collections::VecDeque;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bascule_lab::ensure_packages;
use bascule_lab::layout::workspace;
use clap::Args;

use crate::say::{answer, say};

/// The words after `fuzz`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// How long each target runs, in seconds, after its corpus.
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u64,
    /// How many inputs each target gets instead, or 0 for its corpus alone.
    #[arg(long, value_name = "N", conflicts_with = "seconds")]
    runs: Option<u64>,
    /// How many targets run at one time [default: one for each processor]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Add inputs that reach something new to the corpus of each target.
    #[arg(long)]
    keep: bool,
    /// Only these targets; all if none is named.
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
}

/// How long each target runs in `cargo xtask test`.
const SHORT: Duration = Duration::from_secs(10);
/// The variable that tells the program its target (`fuzz/src/lib.rs`).
const TARGET_VARIABLE: &str = "BASCULE_FUZZ";
/// What libFuzzer looks at: a counter for each edge, its place, and the values that are compared (LLVM's SanitizerCoverage).
const INSTRUMENTATION: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";
/// With a platform named, what runs while building is left without the instrumentation.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";
/// The most memory of the process, in MiB. One input may take a part of it (`fuzz/src/main.rs`).
const MEMORY_MIB_MAX: u32 = 1024;
/// The longest that one input may take, in seconds: the machine may be busy.
const INPUT_SECONDS_MAX: u32 = 60;
/// The longest input, in bytes. No branch needs a longer one.
const INPUT_BYTES_MAX: u32 = 4096;
/// The most that `--keep` lets a corpus grow to, in bytes.
const CORPUS_BYTES_MAX: usize = 100_000;
/// How many of the last lines of a target that failed are shown.
const QUOTED_LINES: usize = 60;

/// Runs the targets; the first finding is the error.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    ensure_packages(say)?;
    let targets = chosen(&arguments.targets)?;
    let bound = match arguments.runs {
        Some(runs) => format!("-runs={runs}"),
        None => format!("-max_total_time={}", arguments.seconds),
    };
    let fuzzer = Fuzzer { program: build()?, bound, keep: arguments.keep };
    fuzzer.run_all(targets, arguments.jobs.unwrap_or_else(processors))
}

/// Every target for a short time: what `cargo xtask test` does.
pub(crate) fn run_short() -> anyhow::Result<()> {
    let bound = format!("-max_total_time={}", SHORT.as_secs());
    Fuzzer { program: build()?, bound, keep: false }.run_all(chosen(&[])?, processors())
}

fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Each target has its corpus.
fn chosen(wanted: &[String]) -> anyhow::Result<VecDeque<String>> {
    let entries = fs::read_dir(corpora()).with_context(|| format!("{} cannot be read", corpora().display()))?;
    let mut known: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    known.sort();
    if let Some(unknown) = wanted.iter().find(|name| !known.contains(name)) {
        bail!("There is no target {unknown}; there are {}", known.join(", "));
    }
    Ok(known.into_iter().filter(|name| wanted.is_empty() || wanted.contains(name)).collect())
}

fn corpora() -> PathBuf {
    workspace().join("fuzz/corpus")
}

/// Builds the instrumented program; cargo says where it is.
fn build() -> anyhow::Result<PathBuf> {
    say("building the fuzzer");
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(workspace())
        .args(["build", "--quiet", "--package", "bascule-fuzz", "--features", "engine", "--bin", "fuzz"])
        .args(["--profile", "fuzz", "--target", PLATFORM, "--message-format", "json-render-diagnostics"])
        .env("RUSTFLAGS", INSTRUMENTATION)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .stderr(Stdio::inherit())
        .output()
        .context("cargo cannot be started")?;
    ensure!(output.status.success(), "The fuzzer does not build");
    let messages = output.stdout.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    let mut programs =
        messages.filter_map(|message: serde_json::Value| Some(PathBuf::from(message["executable"].as_str()?)));
    programs.next_back().context("cargo built no fuzzer")
}

/// The program and how it is to run.
struct Fuzzer {
    program: PathBuf,
    bound: String,
    keep: bool,
}

impl Fuzzer {
    /// So many at one time; what has begun when one fails is run to its end.
    fn run_all(&self, targets: VecDeque<String>, jobs: usize) -> anyhow::Result<()> {
        let queue = Mutex::new(targets);
        let next = || queue.lock().ok()?.pop_front();
        let work = || -> anyhow::Result<()> {
            while let Some(target) = next() {
                self.run(&target)
                    .inspect_err(|_| say(&format!("{target}: FOUND SOMETHING")))
                    .with_context(|| target)?;
            }
            Ok(())
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(work)).collect();
            let done = workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| bail!("A worker panicked")));
            done.collect::<Vec<_>>().into_iter().collect()
        })
    }

    fn run(&self, target: &str) -> anyhow::Result<()> {
        say(&format!("{target}: fuzzing"));
        let (corpus, scratch) = (corpora().join(target), scratch(target)?);
        let mut command = self.command(target, &scratch);
        let statistics = watch(command.arg(&self.bound).arg(scratch.join("new")).arg(&corpus))?;
        answer(&statistics.line(target));
        if self.keep { self.keep(target, &scratch, &corpus) } else { Ok(()) }
    }

    fn command(&self, target: &str, scratch: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env(TARGET_VARIABLE, target)
            .arg(format!("-artifact_prefix={}/", scratch.display()))
            .arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"))
            .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
            .arg(format!("-max_len={INPUT_BYTES_MAX}"))
            .arg("-print_final_stats=1");
        let dictionary = workspace().join("fuzz/dictionaries").join(target);
        if dictionary.exists() {
            command.arg(format!("-dict={}", dictionary.display()));
        }
        command
    }

    /// The corpus grows by inputs that reach what it does not, as few as will do and the shortest first; what it has stays.
    fn keep(&self, target: &str, scratch: &Path, corpus: &Path) -> anyhow::Result<()> {
        let merged = emptied(scratch.join("merged"))?;
        let mut command = self.command(target, scratch);
        command.args(["-set_cover_merge=1", "-use_counters=0"]);
        watch(command.arg(&merged).arg(corpus).arg(scratch.join("new")))?;
        let (old, mut found) = (files(corpus)?, files(&merged)?);
        found.retain(|(_, bytes)| !old.iter().any(|(_, known)| known == bytes));
        let room = CORPUS_BYTES_MAX.saturating_sub(old.iter().map(|(_, bytes)| bytes.len()).sum());
        let joined = shortest(found, room);
        joined.iter().try_for_each(|(name, bytes)| fs::write(corpus.join(name), bytes))?;
        say(&format!("{target}: {} inputs joined the {} of the corpus", joined.len(), old.len()));
        Ok(())
    }
}

/// As many of them as there is room for, in bytes.
fn shortest(mut files: Vec<(OsString, Vec<u8>)>, room: usize) -> Vec<(OsString, Vec<u8>)> {
    files.sort_by_key(|(_, bytes)| bytes.len());
    let mut taken = 0;
    let fits = |(_, bytes): &(OsString, Vec<u8>)| {
        taken += bytes.len();
        taken <= room
    };
    files.into_iter().take_while(fits).collect()
}

/// Where a target's findings go, which stay, and its new inputs, which are those of the last run: below the directory of the build.
fn scratch(target: &str) -> anyhow::Result<PathBuf> {
    let dir = env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    let dir = workspace().join(dir).join("fuzz-work").join(target);
    emptied(dir.join("new"))?;
    Ok(dir)
}

fn emptied(dir: PathBuf) -> anyhow::Result<PathBuf> {
    drop(fs::remove_dir_all(&dir)); // a first run has none
    fs::create_dir_all(&dir).with_context(|| format!("{} cannot be made", dir.display()))?;
    Ok(dir)
}

/// Names and contents.
fn files(dir: &Path) -> anyhow::Result<Vec<(OsString, Vec<u8>)>> {
    let entries = fs::read_dir(dir)?.collect::<Result<Vec<_>, _>>()?;
    entries.into_iter().map(|entry| Ok((entry.file_name(), fs::read(entry.path())?))).collect()
}

/// Runs libFuzzer to its end; what it prints is shown only when it finds something.
fn watch(command: &mut Command) -> anyhow::Result<Statistics> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let (mut statistics, mut last) = (Statistics::default(), VecDeque::new());
    let lines = BufReader::new(child.stderr.take().context("The child has no stderr")?);
    for line in lines.split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        statistics.add(&line);
        last.push_back(line);
        if last.len() > QUOTED_LINES {
            last.pop_front();
        }
    }
    let status = child.wait()?;
    ensure!(status.success(), "{status}\n{}", Vec::from(last).join("\n"));
    Ok(statistics)
}

/// What libFuzzer says of a run.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Statistics {
    executions: u64,
    per_second: u64,
    coverage: u64,
    peak_mib: u64,
}

impl Statistics {
    /// `stat::peak_rss_mb: 31`, `#4096  pulse  cov: 621 ft: 954 …`
    fn add(&mut self, line: &str) {
        let number = |text: &str| text.split_whitespace().next().and_then(|word| word.parse().ok());
        if let Some((_, rest)) = line.split_once(" cov: ") {
            self.coverage = number(rest).unwrap_or(self.coverage);
        }
        let Some((name, value)) = line.strip_prefix("stat::").and_then(|rest| rest.split_once(':')) else { return };
        match (name, number(value)) {
            ("number_of_executed_units", Some(number)) => self.executions = number,
            ("average_exec_per_sec", Some(number)) => self.per_second = number,
            ("peak_rss_mb", Some(number)) => self.peak_mib = number,
            _ => {}
        }
    }

    fn line(&self, target: &str) -> String {
        let Statistics { executions, per_second, coverage, peak_mib } = self;
        format!(
            "{target:<14} {executions:>10} inputs, {per_second:>6}/s, {coverage:>5} edges, {peak_mib:>4} MiB: no finding"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_read() {
        let mut statistics = Statistics::default();
        for line in [
            "#21\tINITED cov: 621 ft: 954 corp: 20/1944b exec/s: 0 rss: 28Mb",
            "#9\tDONE   cov: 1872 ft: 3238 corp: 805/111Kb lim: 517 exec/s: 5443 rss: 29Mb",
            "stat::number_of_executed_units: 114313",
            "stat::average_exec_per_sec:     5443",
            "stat::peak_rss_mb:              29",
        ] {
            statistics.add(line);
        }
        let expected = Statistics { executions: 114_313, per_second: 5443, coverage: 1872, peak_mib: 29 };
        assert_eq!(statistics, expected);
    }

    #[test]
    fn the_shortest_are_taken_as_far_as_there_is_room() {
        let file = |len: usize| (OsString::from(len.to_string()), vec![0; len]);
        assert_eq!(shortest(vec![file(5), file(1), file(3)], 8), [file(1), file(3)]);
    }

    #[test]
    fn every_corpus_is_a_target_and_no_other_is_chosen() {
        assert!(chosen(&[]).unwrap().len() > 1);
        assert_eq!(chosen(&["frames".to_owned()]).unwrap(), ["frames"]);
        assert!(chosen(&["nothing".to_owned()]).unwrap_err().to_string().contains("frames"));
    }
}
