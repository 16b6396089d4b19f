//! `cargo xtask bench …`: our programs beside what users have today, in one lab run, with the same clock.

mod blackout;
mod examples;
mod figures;
mod interrupt;
mod link;
mod migrate;
mod roles;
mod stock;
mod stopwatch;
mod stream;
mod table;
mod ways;

use std::fs;
use std::path::Path;

use anyhow::Context;
use bascule_lab::{Lab, Options};
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::lab;
use crate::say::{answer, say};

/// The words after `bench`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Migrate(migrate::Arguments),
    Roles(roles::Arguments),
    Stream(stream::Arguments),
}

/// What the measurements in the lab can be told.
#[derive(Debug, Args)]
struct Common {
    /// Write the figures, each single one included, to this file
    #[arg(long, value_name = "FILE")]
    json: Option<std::path::PathBuf>,
    /// Leave a lab running that was started for this
    #[arg(long)]
    keep: bool,
}

/// Does it.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match &arguments.action {
        Action::Migrate(arguments) => migrate::run(arguments),
        Action::Roles(arguments) => roles::run(arguments),
        Action::Stream(arguments) => stream::run(arguments),
    }
}

/// Does something in the lab. One that ran before is used and left running.
fn in_the_lab<T>(common: &Common, work: impl FnOnce(&Lab) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let ran_before = Lab::attach().is_ok();
    let lab = lab::start(Options::new(say))?;
    let done = work(&lab);
    if !ran_before && !common.keep {
        Lab::down(None)?;
    }
    done
}

/// What stands under every table.
const CAVEAT: &str = "The nodes are emulated: forks, system calls and cryptography are dearer in them than on hardware, memory copies less so. \
Ratios against ssh and against shell scripts therefore flatter Bascule; those against plain TCP do so for the scripts' part only.";

/// Prints a text and what stands under it, and writes the figures where the user wants them.
fn publish(common: &Common, text: &str, figures: &impl Serialize) -> anyhow::Result<()> {
    answer(&format!("{text}\n\n{CAVEAT}"));
    common.json.as_deref().map_or(Ok(()), |file| write_json(file, figures))
}

fn write_json(file: &Path, figures: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(figures)?;
    fs::write(file, text + "\n").with_context(|| format!("{} cannot be written", file.display()))
}
