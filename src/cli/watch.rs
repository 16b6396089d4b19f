//! `bascule watch`: what the daemon starts for each domain of ours.

use std::path::Path;

use bascule::config::Level;
use bascule::host;
use bascule::ids::DomId;
use bascule::stream::Cancel;
use bascule::watch::{self, Watcher};
use bascule::xen::Context;
use clap::Args;

use super::exit::Error;

/// What a watcher is told.
#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// The domain
    domid: u32,
    /// What to log
    #[arg(long, default_value = "info", value_parser = str::parse::<Level>)]
    pub(crate) log: Level,
}

/// Runs `watch`.
pub(crate) fn run(args: &Watch, state_dir: &Path) -> Result<(), Error> {
    let domid = DomId(args.domid);
    let span = tracing::info_span!("watch", %domid);
    let _entered = span.enter();
    let stop = Cancel::default();
    super::serve::cancel_on_signal(&stop)?;
    let context = Context::open()?;
    let run_dir = Path::new(host::RUN_DIR);
    watch::watch(&Watcher { domains: &context, run_dir, state_dir, xl: &watch::xl::watches }, domid, &stop)
}
