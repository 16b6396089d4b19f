//! `bascule check` without a part named: this host, but for DRBD and the firewall.

use bascule::checkup::{self, Asked, Ways};
use bascule::config::Config;
use bascule::host;

use super::super::serve;
use super::Part;

pub(super) fn part(config: &Config, ways: &Ways) -> Part {
    let listen = match config.relocation.enabled {
        true => serve::listen(&config.relocation).map_err(|error| error.to_string()),
        false => Ok(Vec::new()),
    };
    let node = host::node_name();
    let asked = Asked { node: &node, config, run_dir: host::RUN_DIR.as_ref(), listen: &listen };
    Part::of("host", checkup::host(&asked, ways), "Nothing on this host stands against domains that move.")
}
