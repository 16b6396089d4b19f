//! The `bascule` program: reads the command line, calls the library, prints what it says, and exits with one of
//! [`cli::exit`]'s codes. Everything is decided in the library.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    cli::run(cli::Args::parse())
}
