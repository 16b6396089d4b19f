//! The disk hotplug program, run by libxl for disks with `script=block-drbd` (`drbd:RES` and `drbd:RES/VOL`):
//! `block-drbd add|remove`, with `XENBUS_PATH` in the environment. Installed in Xen's directory of scripts.

use std::path::Path;
use std::process::ExitCode;

use bascule::admission;
use bascule::config;
use bascule::hotplug::{Backend, block, chain};
use bascule::xen::xenstore::Xenstore;

type Error = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let log = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(std::io::stderr);
    log.without_time().with_target(false).with_ansi(false).init();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Error> {
    let command = command()?;
    let path = std::env::var("XENBUS_PATH").map_err(|_| "XENBUS_PATH is not set; this program is run by libxl")?;
    let xenstore = Xenstore::open()?;
    let backend = Backend::new(&xenstore, &path)?;
    let call = block::Call::new(backend, Path::new(admission::DIR), Path::new(config::FILE));
    let result = match command {
        Command::Add => call.add(),
        Command::Remove => call.remove(),
    };
    result.map_err(|error| {
        // libxl shows this node; a failure to write it must not hide the failure itself.
        drop(backend.report(&chain(&error)));
        error.into()
    })
}

#[derive(Clone, Copy)]
enum Command {
    Add,
    Remove,
}

fn command() -> Result<Command, Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["add"] => Ok(Command::Add),
        ["remove"] => Ok(Command::Remove),
        _ => Err(format!("Usage: block-drbd add|remove; got {arguments:?}").into()),
    }
}

#[expect(clippy::print_stderr, reason = "libxl gives the program its own stderr")]
fn complain(message: &str) {
    eprintln!("block-drbd: {message}");
}
