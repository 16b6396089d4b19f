//! `bascule create`, `shutdown` and `destroy`.

use std::time::{Duration, Instant};

use bascule::domcfg;
use bascule::ids::DomId;
use bascule::toolstack::Toolstack;
use bascule::xen::Context;
use clap::Args;

use super::ConfigFile;
use super::exit::Error;

/// Start a domain from a file of xl's format
///
/// `disk = [ 'drbd:RES,xvda,w' ]` or `drbd:RES/VOL` puts a disk on a DRBD volume: this host becomes Primary for it, unless the
/// peer is.
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
    /// Print the resulting configuration as libxl's JSON and start nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("it is not KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

/// Runs `create`.
#[expect(clippy::print_stdout, reason = "the program's output")]
pub(crate) fn create(args: &Create) -> Result<(), Error> {
    if args.dry_run {
        let context = Context::open()?;
        println!("{}", domcfg::load(&args.file, &args.settings)?.to_json(&context)?);
        return Ok(());
    }
    let context = Context::open()?;
    let mut config = domcfg::load(&args.file, &args.settings)?;
    let domid = context.create(&mut config)?;
    if !args.paused {
        context.unpause(domid)?;
    }
    println!("{} is domain {domid}", config.name().unwrap_or_default());
    Ok(())
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
    let domid = find(&context, &args.domain)?;
    context.shutdown(domid)?;
    if !args.wait {
        return Ok(());
    }
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    if !context.wait_shutdown(domid, deadline)? {
        return Err(format!("{} has not shut down within {} s: bascule destroy {0}", args.domain, args.timeout).into());
    }
    context.destroy(domid)
}

/// End a domain at once, as if its power were cut
#[derive(Debug, Args)]
pub(crate) struct Destroy {
    /// The domain, by name or number
    domain: String,
}

/// Runs `destroy`.
pub(crate) fn destroy(args: &Destroy) -> Result<(), Error> {
    let context = Context::open()?;
    let domid = find(&context, &args.domain)?;
    if domid == DomId(0) {
        return Err("Domain 0 is this host's own: it is not destroyed".into());
    }
    context.destroy(domid)
}

/// The domain of that name, or of that number when no domain has the name.
pub(crate) fn find(context: &Context, domain: &str) -> Result<DomId, Error> {
    let domains = context.domains()?;
    let named = domains.iter().find(|candidate| candidate.name == domain);
    let numbered = || domains.iter().find(|candidate| candidate.domid.to_string() == domain);
    match named.or_else(numbered) {
        Some(found) => Ok(found.domid),
        None => Err(format!("Domain {domain} does not exist here: bascule list").into()),
    }
}
