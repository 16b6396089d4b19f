//! The ways to Xen and DRBD of this host, opened for one command.

use bascule::config::{Guests, Security, State};
use bascule::drbd::Drbd;
use bascule::fault::Faults;
use bascule::host::{self, Host};
use bascule::toolstack::Error;
use bascule::xen::Context;

/// What a [`Host`] borrows.
pub(crate) struct Here {
    pub(crate) context: Context,
    drbd: Drbd,
    node: String,
    security: Security,
    guests: Guests,
    faults: Faults,
}

impl Here {
    pub(crate) fn open(security: &Security, guests: &Guests, faults: Faults) -> Result<Here, Error> {
        Ok(Here {
            context: Context::open()?,
            drbd: Drbd::open()?,
            node: host::node_name(),
            security: security.clone(),
            guests: guests.clone(),
            faults,
        })
    }

    pub(crate) fn host<'a>(&'a self, state: &'a State) -> Host<'a> {
        Host {
            toolstack: &self.context,
            replication: &self.drbd,
            node: &self.node,
            run_dir: host::RUN_DIR.as_ref(),
            state_dir: &state.dir,
            history_max: state.history.0,
            security: &self.security,
            guests: &self.guests,
            faults: &self.faults,
        }
    }
}
