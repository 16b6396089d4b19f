//! The command line: its grammar, and one function per command.

/// Prints a line on standard output. Nobody who reads it any more is no reason for a migration to end in the middle.
macro_rules! out {
    ($($words:tt)*) => { $crate::cli::print(format_args!($($words)*)) };
}

pub(crate) mod domain;
pub(crate) mod exit;
mod here;
mod history;
mod list;
mod migrate;
mod recover;
mod serve;
mod status;
mod unfinished;

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bascule::fault::Fault;
use bascule::plan::{self, RELOCATION_PORT};
use bascule::protocol::Handover;
use bascule::receive;
use clap::{Args as ClapArgs, Parser, Subcommand};
use ipnet::IpNet;

/// Runs Xen domains on disks replicated by DRBD, and moves them between hosts while they run.
#[derive(Debug, Parser)]
#[command(name = "bascule", version, max_term_width = 100, after_help = exit::TABLE)]
pub(crate) struct Args {
    /// Say more on standard error: once for what an operator would want, twice for what a developer would
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub(crate) verbose: u8,
    /// Where the journals of migrations are kept
    #[arg(long, global = true, value_name = "DIR", default_value = bascule::journal::DIR)]
    pub(crate) state_dir: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Create(domain::Create),
    List(list::List),
    Status(status::Status),
    History(history::History),
    Migrate(Migrate),
    Cancel(recover::Cancel),
    Recover(recover::Recover),
    Shutdown(domain::Shutdown),
    Destroy(domain::Destroy),
    Serve(Serve),
    /// One session of the daemon, its connection on standard input
    #[command(hide = true)]
    Session(Session),
}

/// Move a running domain to another host
///
/// The domain's memory is streamed to the bascule daemon of HOST while it runs; then it is suspended for a moment, the right
/// to write its volumes moves over, and it goes on there. Whatever fails before that leaves it running here.
#[derive(Debug, ClapArgs)]
pub(crate) struct Migrate {
    /// Accepted as xm and xl have it: a migration is always live
    #[arg(short, long)]
    live: bool,
    /// The domain, by name or number
    domain: String,
    /// The destination, by name or address; it must run `bascule serve`
    host: String,
    /// The destination's relocation port
    #[arg(short, long, default_value_t = RELOCATION_PORT)]
    port: u16,
    /// How the volumes change hands: `single`, never two Primaries, wherever the disks were attached by bascule's block-drbd
    /// (the default there); `dual`, two Primaries for a moment, with which any domain on DRBD can move
    #[arg(long, value_parser = handover)]
    handover: Option<Handover>,
    /// Only look: print what would make it fail, on both hosts
    #[arg(long)]
    dry_run: bool,
    /// The bound of a wait in seconds: connect, answer, stall (of the stream), volumes, retake, ready, report or resolve; may be
    /// given several times
    #[arg(long = "timeout", value_name = "WAIT=SECONDS", value_parser = source_bound)]
    timeouts: Vec<Bound>,
    /// Print events and the receipt as JSON, one object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    rehearsal: Rehearsal,
}

/// Faults on purpose.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Rehearsal (makes migrations fail)")]
pub(crate) struct Rehearsal {
    /// Fail at a step: STEP[:kill|:error|:hang]. Unknown steps are answered with the list of all; a hang lasts until the file
    /// fault-STEP in /run/bascule is removed
    #[arg(long, value_name = "STEP[:HOW]")]
    fail_at: Option<Fault>,
}

/// A bound of a wait: its name and how long.
type Bound = (String, Duration);

fn source_bound(text: &str) -> Result<Bound, String> {
    bound(text, plan::Timeouts::NAMES)
}

fn destination_bound(text: &str) -> Result<Bound, String> {
    bound(text, receive::Timeouts::NAMES)
}

fn bound(text: &str, names: &[&str]) -> Result<Bound, String> {
    let all = names.join(", ");
    let (name, seconds) = text.split_once('=').ok_or_else(|| format!("it is WAIT=SECONDS, WAIT one of {all}"))?;
    let bound = seconds.parse().ok().filter(|seconds| (0.1..=86_400.0).contains(seconds)).map(Duration::from_secs_f64);
    let bound = bound.ok_or("the bound is 0.1 to 86400 seconds")?;
    match names.contains(&name) {
        true => Ok((name.to_owned(), bound)),
        false => Err(format!("no wait is called {name}; there are {all}")),
    }
}

fn handover(text: &str) -> Result<Handover, String> {
    match text {
        "single" => Ok(Handover::Single),
        "dual" => Ok(Handover::Dual),
        _ => Err("it is single or dual".into()),
    }
}

/// Receive domains from other hosts: the relocation daemon
///
/// Runs in the foreground and logs on standard error. It also finishes, or takes back, migrations whose process has died. Ends on SIGTERM or SIGINT: sessions that have not reached their point
/// of no return are given up, and the domain goes on at the source.
#[derive(Debug, ClapArgs)]
pub(crate) struct Serve {
    /// The address to listen on; may be given several times. All addresses of this host unless given
    #[arg(short, long)]
    address: Vec<IpAddr>,
    /// The port to listen on
    #[arg(short, long, default_value_t = RELOCATION_PORT)]
    port: u16,
    /// Who may send domains: an address or a network such as 10.99.0.0/24; may be given several times. Nobody else is answered
    #[arg(long, required = true, value_parser = host_or_network)]
    allow: Vec<IpNet>,
    /// The most sessions at one time
    #[arg(long, default_value_t = bascule::daemon::SESSIONS_MAX)]
    sessions: usize,
    #[command(flatten)]
    bounds: Bounds,
    #[command(flatten)]
    rehearsal: Rehearsal,
}

/// The bounds of the destination's waits.
#[derive(Debug, ClapArgs)]
pub(crate) struct Bounds {
    /// The bound of a wait in seconds: hello, offer, released, go, volumes or farewell; may be given several times
    #[arg(long = "timeout", value_name = "WAIT=SECONDS", value_parser = destination_bound)]
    timeouts: Vec<Bound>,
}

/// What a session of the daemon is told.
#[derive(Debug, ClapArgs)]
pub(crate) struct Session {
    #[command(flatten)]
    bounds: Bounds,
    #[command(flatten)]
    rehearsal: Rehearsal,
}

fn host_or_network(text: &str) -> Result<IpNet, String> {
    let host = text.parse::<IpAddr>().map(IpNet::from);
    host.or_else(|_| text.parse()).map_err(|_| "it is neither an address nor a network such as 10.99.0.0/24".into())
}

/// A file of xl's format, and where it is.
pub(crate) type ConfigFile = PathBuf;

impl Args {
    /// Whether the program runs for long and its log is its face.
    pub(crate) fn serves(&self) -> bool {
        matches!(self.command, Command::Serve(_) | Command::Session(_))
    }
}

fn print(line: std::fmt::Arguments<'_>) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Runs the command; what it returns is one of [`exit`]'s codes.
pub(crate) fn run(args: Args) -> ExitCode {
    let state_dir = &args.state_dir;
    let done = match args.command {
        Command::Migrate(migrate) => return migrate::run(&migrate, state_dir),
        Command::Recover(recover) => return recover::run(&recover, state_dir),
        Command::Cancel(cancel) => recover::cancel(&cancel, state_dir),
        Command::Create(create) => domain::create(&create),
        Command::List(list) => list::run(&list, state_dir),
        Command::Status(status) => status::run(&status, state_dir),
        Command::History(history) => history::run(&history, state_dir),
        Command::Shutdown(shutdown) => domain::shutdown(&shutdown),
        Command::Destroy(destroy) => domain::destroy(&destroy),
        Command::Serve(serve) => serve::run(&serve, state_dir),
        Command::Session(session) => serve::session(&session, state_dir),
    };
    exit::of(done)
}

/// The log goes to standard error: warnings by default, the phases and sessions too where the log is all there is.
pub(crate) fn start_log(verbose: u8, serves: bool) {
    let level = match verbose + u8::from(serves) {
        // What libxl complains of stands in the error that is printed.
        0 => "warn,libxl=off",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("BASCULE_LOG").unwrap_or_else(|_| level.into());
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi).init();
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_help_names_every_wait_that_can_be_bounded() {
        let mut args = Args::command();
        args.clone().debug_assert();
        let ends = [("migrate", plan::Timeouts::NAMES), ("serve", receive::Timeouts::NAMES)];
        for (command, names) in ends {
            let help = args.find_subcommand_mut(command).expect("a command").render_long_help().to_string();
            let missing: Vec<&&str> = names.iter().filter(|name| !help.contains(**name)).collect();
            assert!(missing.is_empty(), "{command} --help does not name {missing:?}");
        }
    }

    #[test]
    fn a_bound_has_a_known_name_and_a_sensible_length() {
        assert_eq!(source_bound("ready=1.5"), Ok(("ready".to_owned(), Duration::from_millis(1500))));
        for refused in ["ready", "ready=", "ready=0", "ready=1e9", "ready=NaN", "go=5", "=5"] {
            assert!(source_bound(refused).is_err(), "{refused}");
        }
        assert!(destination_bound("go=5").is_ok());
    }
}
