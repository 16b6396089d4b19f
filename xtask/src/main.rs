//! The entry points of the repository: `cargo xtask demo`, `test`, `bench`, `lab …` and `uml`.

mod bench;
mod demo;
mod fuzz;
mod lab;
mod say;
mod test;
mod uml;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use say::fail;

/// Entry points of the repository; each installs and builds what it needs.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Our programs beside what users have today: times, bytes and ratios, measured in the lab.
    Bench(bench::Arguments),
    /// The main job, step by step: a domain on DRBD is created and moved live between two Xen hosts.
    Demo(demo::Arguments),
    /// Hostile input: bytes that break what takes bytes from elsewhere are looked for.
    Fuzz(fuzz::Arguments),
    /// Two Xen dom0s with DRBD between them, under QEMU.
    Lab(lab::Arguments),
    /// Format, lints, unit tests, short fuzzing, DRBD in user-mode Linux, and the tests that need the lab.
    Test(test::Arguments),
    /// The tests against the real DRBD module and device-mapper in user-mode Linux.
    Uml,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Bench(arguments) => bench::run(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Demo(arguments) => demo::run(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Fuzz(arguments) => fuzz::run(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Lab(arguments) => lab::run(arguments),
        Task::Test(arguments) => test::run(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Uml => uml::run(&mut |_| {}).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        fail(&error);
        ExitCode::FAILURE
    })
}
