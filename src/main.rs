//! The `bascule` program: reads the command line, calls the library, prints what it says, and exits with one of
//! [`cli::exit`]'s codes. Everything is decided in the library.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let args = cli::Args::parse();
    cli::start_log(args.verbose, args.serves());
    cli::run(args)
}
