//! `bascule create`, `shutdown` and `destroy`.

use std::path::Path;
use std::time::{Duration, Instant};

use bascule::admission::{Act, Record};
use bascule::console::Which;
use bascule::domcfg::{self, Defaults, Host};
use bascule::ids::DomId;
use bascule::migrate::chain;
use bascule::toolstack::{Domain, RunState};
use bascule::watch::Domains;
use bascule::xen::domain::{Ended, ShutdownReason};
use bascule::xen::{Context, DomainConfig};
use bascule::{abandoned, host, watch};
use clap::Args;

use super::ConfigFile;
use super::console::{Attached, Attending};
use super::exit::Error;

/// Start a domain from a file of xl's format
///
/// `disk = [ 'drbd:RES,xvda,w' ]` or `drbd:RES/VOL` puts a disk on a DRBD volume: this host becomes Primary for it, unless the
/// peer is.
///
/// What /etc/xen/xl.conf says of all domains holds as with xl (bridge, script and backend of nics, grant frames, CPUs and the like);
/// --dry-run shows the result. A mistake in that file makes no domain.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The domain's file, such as /etc/xen/vm.cfg
    file: ConfigFile,
    /// Settings that replace those of the file
    #[arg(value_name = "KEY=VALUE", value_parser = key_value)]
    settings: Vec<(String, String)>,
    /// Leave the domain paused
    #[arg(short, long)]
    paused: bool,
    /// Attach to its console before it runs, or to its boot loader's, so that neither says anything unseen; Ctrl-] detaches
    #[arg(short, long)]
    console: bool,
    /// Print the resulting configuration as libxl's JSON and start nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Let it have CPUs that vm.cpumask and its like of /etc/xen/xl.conf keep from domains
    #[arg(short, long)]
    ignore_global_affinity_masks: bool,
    /// Say nothing about keys that are deprecated or have no effect, in its file or in /etc/xen/xl.conf
    #[arg(short, long)]
    quiet: bool,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("it is not KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

/// Runs `create`.
pub(crate) fn create(args: &Create) -> Result<(), Error> {
    let host = as_configured(args.quiet)?;
    let host = if args.ignore_global_affinity_masks { host.with_all_cpus() } else { host };
    let config = load(&args.file, &args.settings, &host, args.quiet)?;
    if args.dry_run {
        return print(config);
    }
    let context = Context::open()?;
    let mut alone = Record::act(host::RUN_DIR.as_ref(), Act::Create, config.name())?;
    if context.exists(&config)? {
        return Err(format!("A domain of the name or the UUID of {} exists here: bascule list", config.name()).into());
    }
    // A boot loader speaks, and is answered, before there is a domain.
    let speaks_first = args.console && config.value().pointer("/b_info/bootloader").is_some();
    let mut first = None;
    let made = make(&context, &config, &mut alone, || {
        let mut attend = |domid| {
            if speaks_first && first.is_none() {
                first = Some(Attending::begin(domid, config.name()));
            }
        };
        Ok(context.create_telling(&config, &mut attend)?)
    });
    let how = Begin { paused: args.paused, console: args.console && first.is_none() };
    let begun = made.and_then(|domid| begin(&context, domid, alone, how));
    // The person's terminal is put back before he is told what went wrong.
    let attended = first.map_or(Ok(()), Attending::end);
    let console = begun?;
    attended?;
    console.map_or(Ok(()), Attached::attend)
}

/// Makes a domain, of which there is none yet. Who finds the record of this process, if it is killed, knows which domain it has made.
pub(super) fn make(
    context: &Context,
    config: &DomainConfig,
    alone: &mut Record,
    make: impl FnOnce() -> Result<DomId, Error>,
) -> Result<DomId, Error> {
    match config.uuid() {
        Some(uuid) => context.noticing(uuid, abandoned::making(alone, uuid)?, make),
        None => make(),
    }
}

/// How a domain that has just been made begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begin {
    pub(super) paused: bool,
    /// Its console is shown.
    pub(super) console: bool,
}

/// Somebody is in charge of it, somebody has its console, and then it runs. From then on nobody is kept from it: whoever looks at its console may do
/// so for days.
pub(super) fn begin<'a>(
    context: &'a Context,
    domid: DomId,
    alone: Record,
    how: Begin,
) -> Result<Option<Attached<'a>>, Error> {
    let name = alone.entry().name.clone();
    let watched = put_in_charge(context, domid);
    let console = how.console.then(|| Attached::to(context, domid, &name, Which::Usual(0)));
    if !how.paused {
        context.unpause(domid)?;
    }
    drop(alone);
    out!("{name} is domain {domid}");
    if let Err(why) = watched {
        out!("Nobody will start it anew when it reboots or crashes: {why}");
    }
    console.transpose().map_err(|why| format!("{name} is there, but not its console: {}", chain(why.as_ref())).into())
}

/// This host, with what its administrator says of all domains.
pub(super) fn as_configured(quiet: bool) -> Result<Host, Error> {
    let host = Host::this();
    let defaults = Defaults::load(Defaults::FILE, &host)?;
    if !quiet {
        tell(Defaults::FILE.as_ref(), &defaults.warnings);
    }
    Ok(host.with(defaults))
}

/// A domain's file.
pub(super) fn load(
    file: &Path,
    settings: &[(String, String)],
    host: &Host,
    quiet: bool,
) -> Result<DomainConfig, Error> {
    let domcfg::Loaded { config, warnings } = domcfg::load(file, settings, host)?;
    if !quiet {
        tell(file, &warnings);
    }
    Ok(config)
}

#[expect(clippy::print_stderr, reason = "the program's messages")]
fn tell(file: &Path, warnings: &[domcfg::Warning]) {
    warnings.iter().for_each(|warning| eprintln!("bascule: {}: {warning}", file.display()));
}

/// Where Xen runs, as libxl writes it after it has read it: what it does not understand shows here already.
fn print(config: DomainConfig) -> Result<(), Error> {
    let config = match Context::open() {
        Ok(context) => context.normalised(&config)?,
        Err(_) => config,
    };
    out!("{}", serde_json::to_string_pretty(config.value())?);
    Ok(())
}

/// Before it runs, so that there is no moment in which it could end unseen.
fn put_in_charge(context: &Context, domid: DomId) -> Result<(), String> {
    let run_dir = Path::new(host::RUN_DIR);
    let uuid = match context.info(domid) {
        Ok(Some(info)) => info.domain.uuid,
        Ok(None) => return Err("it is gone already".into()),
        Err(error) => return Err(chain(&error)),
    };
    watch::announce(run_dir, domid, uuid).map_err(|error| chain(&error))?;
    match watch::is_somebody_on_duty(run_dir) {
        true => Ok(()),
        false => Err("the daemon does not run. It sees to that from the moment it is started: bascule serve".into()),
    }
}

/// Ask a domain to shut down
#[derive(Debug, Args)]
pub(crate) struct Shutdown {
    /// The domain, by name or number
    domain: String,
    /// Wait until it has, and take away what is left of it
    #[arg(short, long)]
    wait: bool,
    /// How long to wait, in seconds
    #[arg(long, default_value_t = 300, requires = "wait")]
    timeout: u64,
}

/// Runs `shutdown`.
pub(crate) fn shutdown(args: &Shutdown) -> Result<(), Error> {
    let context = Context::open()?;
    let Domain { domid, name, .. } = context.find(&args.domain)?.domain;
    context.shutdown(domid)?;
    if !args.wait {
        return Ok(());
    }
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    match context.wait_shutdown(domid, deadline)? {
        Some(Ended::Shutdown(reason)) => {
            clean_up(&context, domid, &name)?;
            match reason {
                ShutdownReason::Crash | ShutdownReason::Watchdog => {
                    Err(format!("{} crashed instead of shutting down", args.domain).into())
                }
                _ => Ok(()),
            }
        }
        Some(Ended::Gone) => Ok(()),
        None => {
            Err(format!("{0} has not shut down within {1} s: bascule destroy {0}", args.domain, args.timeout).into())
        }
    }
}

/// What is left of it is its watcher's where it has one, ours or xl's: that does what the configuration says.
fn clean_up(context: &Context, domid: DomId, name: &str) -> Result<(), Error> {
    let deadline = Instant::now() + CLEAN_UP_WAIT;
    while watch::is_watched(Path::new(host::RUN_DIR), domid) || watch::xl::watches(domid, name) {
        match context.state(domid)? {
            None | Some(RunState::Dying) => return Ok(()),
            Some(_) if Instant::now() >= deadline => {
                return Err(format!("{name} has shut down, and is still there: bascule destroy {name}").into());
            }
            Some(_) => std::thread::sleep(CLEAN_UP_INTERVAL),
        }
    }
    match context.state(domid)? {
        None | Some(RunState::Dying) => Ok(()),
        Some(_) => Ok(context.destroy(domid)?),
    }
}

/// How long a watcher may take to destroy a domain: each device's hotplug program has 40 s.
const CLEAN_UP_WAIT: Duration = Duration::from_secs(120);
/// Between two looks at what it has done.
const CLEAN_UP_INTERVAL: Duration = Duration::from_millis(50);

/// End a domain at once, as if its power were cut
#[derive(Debug, Args)]
pub(crate) struct Destroy {
    /// The domain, by name or number
    domain: String,
}

/// Runs `destroy`.
pub(crate) fn destroy(args: &Destroy) -> Result<(), Error> {
    let context = Context::open()?;
    let domid = context.find(&args.domain)?.domain.domid;
    if domid == DomId(0) {
        return Err("Domain 0 is this host's own: it is not destroyed".into());
    }
    Ok(context.destroy(domid)?)
}
