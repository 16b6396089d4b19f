//! `bascule drbd`: a resource of DRBD's files brought up, or taken down.

use std::path::Path;

use bascule::drbd::{Drbd, conf};
use clap::{Args, Subcommand};

use super::exit::Error;

/// Bring DRBD's resources up, or take them down, as the files say
#[derive(Debug, Args)]
pub(crate) struct Resources {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a resource of the files: its volumes with their disks, and its connections
    ///
    /// Its metadata must be there (drbdadm create-md). What cannot be done as the files say is left to drbdadm, all of it; when a step fails, what was
    /// done before it is undone.
    Up {
        /// The resource, by its name in the files
        resource: String,
    },
    /// Take a resource out of the kernel; refused while a volume is in use or a migration needs it
    Down {
        /// The resource, by its name
        resource: String,
    },
}

/// Runs the command.
pub(crate) fn run(args: &Resources, state_dir: &Path) -> Result<(), Error> {
    match &args.verb {
        Verb::Up { resource } => {
            let config = conf::here()?.ok_or_else(|| format!("There is none of {}", drbd_conf::FILES.join(", ")))?;
            Ok(Drbd::open()?.up(&config, resource, &conf::node().name)?)
        }
        Verb::Down { resource } => Ok(Drbd::open()?.down(resource, state_dir)?),
    }
}
