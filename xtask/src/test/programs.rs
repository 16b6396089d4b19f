//! Test programs, run by cargo all at once, or by us one test at a time.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use bascule_lab::layout::workspace;

use super::report::{Counts, Failed};
use crate::say::{answer, say};

/// Runs cargo; what it prints goes on to the screen, and the tests in it are counted.
pub(super) fn cargo(arguments: &[&str]) -> anyhow::Result<Counts> {
    cargo_with(arguments, &[])
}

/// The same with these variables.
pub(super) fn cargo_with(arguments: &[&str], variables: &[(&str, String)]) -> anyhow::Result<Counts> {
    let mut counts = Counts::default();
    let variables = variables.iter().map(|(name, value)| (name, value));
    let ended = shown(cargo_command().args(arguments).envs(variables), &mut counts)?;
    ensure!(ended, "cargo {} failed", arguments.join(" "));
    Ok(counts)
}

/// The programs of the workspace's test targets of one name.
#[derive(Debug)]
pub(super) struct Program {
    files: Vec<PathBuf>,
}

impl Program {
    /// Builds them.
    pub(super) fn of(target: &str) -> anyhow::Result<Self> {
        say(&format!("building the tests: {target}"));
        let built = cargo_command()
            .args([
                "test",
                "--quiet",
                "--workspace",
                "--test",
                target,
                "--no-run",
                "--message-format=json-render-diagnostics",
            ])
            .stderr(Stdio::inherit())
            .output()
            .context("cargo cannot be started")?;
        ensure!(built.status.success(), "the tests {target} do not build");
        let messages = String::from_utf8_lossy(&built.stdout);
        let files: Vec<PathBuf> = messages.lines().filter_map(|message| executable(message, target)).collect();
        ensure!(!files.is_empty(), "there are no tests {target}");
        Ok(Self { files })
    }

    /// Runs their ignored tests one after the other, those whose names contain one of the filters. None is begun after a moment; all others
    /// run, also when one fails.
    pub(super) fn run(
        &self,
        variables: &[(&str, String)],
        filters: &[String],
        until: Option<Instant>,
    ) -> anyhow::Result<Counts> {
        let (mut counts, mut failed, mut found) = (Counts::default(), Vec::new(), false);
        for file in &self.files {
            let mut tests = tests_of(file, filters)?;
            if until.is_some() {
                begin_anywhere(&mut tests);
            }
            for test in tests {
                found = true;
                if until.is_some_and(|until| Instant::now() >= until) {
                    say(&format!("{test}: skipped, the time is over"));
                    counts.skipped += 1;
                    continue;
                }
                say(&test);
                let mut command = command(file);
                command.args(["--ignored", "--exact", &test, "--nocapture"]);
                command.envs(variables.iter().map(|(name, value)| (name, value)));
                if !shown(&mut command, &mut counts)? {
                    failed.push(test);
                }
            }
        }
        ensure!(found, "no test is called {}", filters.join(" or "));
        ensure!(failed.is_empty(), Failed { tests: failed, counts });
        Ok(counts)
    }
}

/// Not all may fit into the time: each run begins elsewhere, so that none is left out every time.
fn begin_anywhere(tests: &mut [String]) {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if let Some(start) = usize::try_from(seconds).ok().and_then(|seconds| seconds.checked_rem(tests.len())) {
        tests.rotate_left(start);
    }
}

/// `name: test`, a line each.
fn tests_of(file: &PathBuf, filters: &[String]) -> anyhow::Result<Vec<String>> {
    let listed = command(file).args(["--ignored", "--list", "--format=terse"]).args(filters).output()?;
    ensure!(listed.status.success(), "{} does not list its tests", file.display());
    let text = String::from_utf8_lossy(&listed.stdout);
    Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

fn cargo_command() -> Command {
    command(&PathBuf::from(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())))
}

fn command(program: &PathBuf) -> Command {
    let mut command = Command::new(program);
    command.current_dir(workspace()).stdin(Stdio::null());
    command
}

/// Runs it, shows what it prints, counts the tests in it; whether it ended well.
fn shown(command: &mut Command, counts: &mut Counts) -> anyhow::Result<bool> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("a program cannot be started")?;
    for line in BufReader::new(child.stdout.take().context("The child has no stdout")?).lines() {
        let line = line?;
        answer(&line);
        counts.add(&line);
    }
    Ok(child.wait()?.success())
}

/// The path of the test program that a message of cargo's announces (cargo's reference, "External tools").
fn executable(message: &str, target: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let is_it = message["target"]["name"] == target && message["target"]["kind"][0] == "test";
    is_it.then(|| message["executable"].as_str().map(PathBuf::from)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_names_the_test_programs() {
        let message = r#"{"target":{"name":"lab","kind":["test"]},"executable":"/t/lab-1"}"#;
        assert_eq!(executable(message, "lab"), Some("/t/lab-1".into()));
        assert_eq!(executable(message, "faults"), None);
        assert_eq!(executable(r#"{"target":{"name":"lab","kind":["lib"]},"executable":null}"#, "lab"), None);
    }
}
