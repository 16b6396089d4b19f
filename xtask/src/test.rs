//! `cargo xtask test`: everything that can be tested on this machine, from the cheapest to the dearest.

use std::process::Command;

use anyhow::{Context, ensure};
use bascule_lab::layout::workspace;
use bascule_lab::{Lab, Options, ensure_packages};
use clap::Args;

use crate::lab;
use crate::say::say;

/// The words after `test`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Leave the lab running.
    #[arg(long)]
    keep: bool,
    /// Only the tests of the lab whose names contain this.
    #[arg(value_name = "FILTER")]
    filter: Option<String>,
}

/// Runs all of it; the first failure ends it.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    ensure_packages(say)?;
    cargo("format", &["fmt", "--all", "--check"])?;
    cargo("lints", &["clippy", "--quiet", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"])?;
    cargo("unit tests", &["test", "--quiet", "--workspace"])?;
    in_the_lab(arguments)
}

/// A lab that ran before is used and left running.
fn in_the_lab(arguments: &Arguments) -> anyhow::Result<()> {
    let ran_before = Lab::attach().is_ok();
    let lab = lab::start(Options::new(say))?;
    lab::push_programs(&lab)?;
    let filter = arguments.filter.iter().map(String::as_str);
    let words = ["test", "--quiet", "--test", "lab", "--", "--ignored", "--test-threads=1", "--nocapture"];
    let tested = cargo("tests in the lab", &words.into_iter().chain(filter).collect::<Vec<_>>());
    if tested.is_err() {
        say(&format!("logs: {}", lab.layout().logs().display()));
    }
    if !ran_before && !arguments.keep {
        Lab::down(None)?;
    }
    tested
}

fn cargo(what: &str, arguments: &[&str]) -> anyhow::Result<()> {
    say(what);
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(workspace())
        .args(arguments)
        .status()
        .context("cargo cannot be started")?;
    ensure!(status.success(), "{what}: cargo {} ended with {status}", arguments.join(" "));
    Ok(())
}
