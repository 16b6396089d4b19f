//! The command line: its grammar, and one function per command.

/// Prints a line on standard output. Nobody who reads it any more is no reason for a migration to end in the middle.
macro_rules! out {
    ($($words:tt)*) => { $crate::cli::print(format_args!($($words)*)) };
}

mod check;
mod config;
mod console;
pub(crate) mod domain;
mod drbd;
pub(crate) mod exit;
mod here;
mod history;
mod life;
mod list;
mod log;
mod migrate;
mod pace;
mod pair;
mod recover;
mod saved;
mod secured;
mod serve;
mod settings;
mod status;
mod unfinished;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bascule::config::{Address, Config, Level, PathPattern};
use bascule::daemon::Entry;
use bascule::fault::Fault;
use bascule::migrate::chain;
use bascule::plan::{self, BridgeMap, RELOCATION_PORT};
use bascule::preflight;
use bascule::protocol::Handover;
use bascule::receive;
use clap::{Args as ClapArgs, Parser, Subcommand};

use self::secured::Secured;
use self::settings::Source;

/// Runs Xen domains on disks replicated by DRBD, and moves them between hosts while they run.
#[derive(Debug, Parser)]
#[command(name = "bascule", version, max_term_width = 100, after_help = exit::TABLE)]
pub(crate) struct Args {
    /// Say more on standard error: once for what an operator would want, twice for what a developer would
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    /// The configuration; every setting has its default when there is no such file
    #[arg(long, global = true, value_name = "FILE", default_value = bascule::config::FILE)]
    config: PathBuf,
    /// Where the journals of migrations are kept, instead of where the configuration says
    #[arg(long, global = true, value_name = "DIR")]
    state_dir: Option<PathBuf>,
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
    Reboot(life::Reboot),
    Pause(life::Pause),
    Unpause(life::Unpause),
    Resume(life::Resume),
    Rename(life::Rename),
    Save(saved::Save),
    Restore(saved::Restore),
    Console(console::Console),
    Serve(Serve),
    Config(config::Config),
    Pair(pair::Pair),
    Peers(pair::Peers),
    Unpair(pair::Unpair),
    Check(check::Check),
    Drbd(drbd::Resources),
    /// One session of the daemon, its connection on standard input
    #[command(hide = true)]
    Session(Session),
    /// The watch over one domain
    #[command(hide = true)]
    Watch(watch::Watch),
}

/// Move a running domain to another host
///
/// The domain's memory is streamed to the bascule daemon of HOST while it runs; then it is suspended for a moment, the right
/// to write its volumes moves over, and it goes on there. Whatever fails before that leaves it running here.
#[derive(Debug, ClapArgs)]
#[command(after_long_help = preflight::codes::table())]
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
    /// The disk VDEV is no DRBD volume, but both hosts have the same storage under its path; may be given several times. It must be a
    /// block device that the kernel serves (phy:), and the destination's configuration must allow it ([guests] shared-disks)
    #[arg(long = "shared-disk", value_name = "VDEV")]
    shared_disks: Vec<String>,
    /// Put the nics that are on bridge OLD here on bridge NEW there; may be given several times. It goes before what the destination's
    /// configuration says ([guests] bridges)
    #[arg(long = "map-bridge", value_name = "OLD=NEW")]
    bridges: Vec<BridgeMap>,
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
#[derive(Clone, Debug, ClapArgs)]
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
/// Runs in the foreground and logs on standard error. It also finishes, or takes back, migrations whose process has died, and gives each domain
/// that `bascule create` has started, or that came here, a process that acts when it reboots, crashes or powers off, as its configuration
/// says; those processes stay when it ends. Ends on SIGTERM or SIGINT: sessions that have not reached their point
/// of no return are given up, and the domain goes on at the source.
///
/// What is not given here is as the configuration says. On SIGHUP that is read anew: who may connect, how many, and the bounds of waits
/// change for new sessions; running ones go on.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Serve {
    /// The address, or the interface, to listen on; may be given several times. All addresses of this host unless given
    #[arg(short, long, value_parser = str::parse::<Address>)]
    address: Vec<Address>,
    /// The port to listen on
    #[arg(short, long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Who may send domains: an address, a network such as 10.99.0.0/24, a full name, or a regular expression between slashes; may be
    /// given several times. Nobody else is answered
    #[arg(long, value_parser = str::parse::<Entry>)]
    allow: Vec<Entry>,
    /// The most sessions at one time
    #[arg(long)]
    sessions: Option<usize>,
    /// Only look whether the daemon could serve: print each thing that it needs, and what to type where it is not there. Changes nothing
    #[arg(long)]
    check: bool,
    /// Print what --check finds as JSON
    #[arg(long, requires = "check")]
    json: bool,
    #[command(flatten)]
    bounds: Bounds,
    #[command(flatten)]
    rehearsal: Rehearsal,
}

/// The bounds of the destination's waits.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Bounds {
    /// The bound of a wait in seconds: authentication, hello, offer, released, go, volumes or farewell; may be given several times
    #[arg(long = "timeout", value_name = "WAIT=SECONDS", value_parser = destination_bound)]
    timeouts: Vec<Bound>,
}

/// What a session of the daemon is told.
#[derive(Debug, ClapArgs)]
pub(crate) struct Session {
    /// Finished journals to keep
    #[arg(long, default_value_t = bascule::journal::KEPT)]
    history: usize,
    /// What to log
    #[arg(long, default_value = "info", value_parser = str::parse::<Level>)]
    log: Level,
    /// Where kernels of domains may be
    #[arg(long)]
    kernels: Vec<PathBuf>,
    /// What their nics may name
    #[arg(long = "nic-script")]
    nic_scripts: Vec<String>,
    /// What they may have as disks, and write
    #[arg(long = "shared-disk")]
    shared_disks: Vec<PathPattern>,
    /// The same, but only read
    #[arg(long = "read-only-disk")]
    read_only_disks: Vec<PathPattern>,
    /// Bridges that have another name here
    #[arg(long = "map-bridge")]
    bridges: Vec<BridgeMap>,
    #[command(flatten)]
    security: Secured,
    #[command(flatten)]
    bounds: Bounds,
    #[command(flatten)]
    rehearsal: Rehearsal,
}

/// A file of xl's format, and where it is.
pub(crate) type ConfigFile = PathBuf;

impl Args {
    /// What the log shall say where it is the program's face: of the daemon and its sessions.
    fn served_level(&self, config: &Config) -> Option<Level> {
        match &self.command {
            // A check is a command like any other: what libxl complains of stands in what it prints.
            Command::Serve(serve) => (!serve.check).then_some(config.log.level),
            Command::Session(session) => Some(session.log),
            Command::Watch(watch) => Some(watch.log),
            _ => None,
        }
    }
}

fn print(line: std::fmt::Arguments<'_>) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Runs the command; what it returns is one of [`exit`]'s codes.
pub(crate) fn run(args: Args) -> ExitCode {
    // What the daemon starts by way of /proc/self/exe would be called exe.
    let _ = nix::sys::prctl::set_name(c"bascule");
    let source = Source::new(&args);
    let config = match source.load() {
        Ok(config) => config,
        Err(error) => return exit::fail(exit::FAILED, &chain(&error)),
    };
    log::start(settings::log_filter(args.served_level(&config), args.verbose));
    let state_dir = &config.state.dir;
    let done = match args.command {
        Command::Migrate(migrate) => return migrate::run(&migrate, &config),
        Command::Recover(recover) => return recover::run(&recover, &config),
        Command::Cancel(cancel) => recover::cancel(&cancel, state_dir),
        Command::Create(create) => domain::create(&create),
        Command::List(list) => list::run(&list, &config),
        Command::Status(status) => status::run(&status, state_dir),
        Command::History(history) => history::run(&history, state_dir),
        Command::Shutdown(shutdown) => domain::shutdown(&shutdown),
        Command::Destroy(destroy) => domain::destroy(&destroy),
        Command::Serve(serve) => serve::run(&serve, config, &source),
        Command::Config(args) => config::run(&args, &config),
        Command::Pair(args) => pair::run(&args, &config),
        Command::Peers(args) => pair::peers(&args, state_dir),
        Command::Unpair(args) => pair::unpair(&args, state_dir),
        Command::Drbd(drbd) => drbd::run(&drbd, state_dir),
        Command::Check(check) => return check::run(&check, &config),
        Command::Reboot(reboot) => life::reboot(&reboot, state_dir),
        Command::Pause(pause) => life::pause(&pause, state_dir),
        Command::Unpause(unpause) => life::unpause(&unpause, state_dir),
        Command::Resume(resume) => life::resume(&resume, state_dir),
        Command::Save(save) => return saved::save(&save, state_dir),
        Command::Restore(restore) => saved::restore(&restore, state_dir),
        Command::Console(args) => console::run(&args),
        Command::Rename(rename) => life::rename(&rename, state_dir),
        Command::Watch(watch) => watch::run(&watch, state_dir),
        Command::Session(session) => serve::session(&session, config.state.dir),
    };
    exit::of(done)
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
