//! `bascule check`: this host compared with what migrations need. It changes nothing.

mod drbd;
mod firewall;

use std::process::ExitCode;

use bascule::config::Config;
use clap::Args;
use serde_json::{Value, json};

use super::exit::{self, Error};

/// Compare this host with what migrations need; nothing is changed
///
/// With --firewall: what nftables and iptables do with connections to the relocation port, from each peer and from everybody else, and rules that would close it to all but the peers. Peers are those of hosts-allow; where that allows every address, the hosts that this one is
/// paired with (or those of security.names, with certificates) and security.in-clear. Where it hangs on something that cannot be known (the interface, a
/// rate, a mark), the rule is named and nothing is claimed.
///
/// With --drbd: what DRBD's configuration files have for good and what the kernel has now, where the two differ, and what in either is a danger to
/// domains that move, each with the file and the line.
///
/// Exits with 0 when all is as it should be; see the exit codes for the rest.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Check the firewall; needs root
    #[arg(long, required_unless_present = "drbd")]
    firewall: bool,
    /// Check DRBD's configuration; needs root to see secrets that differ
    #[arg(long)]
    drbd: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How good what a part found is; the worst of all parts becomes the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Good,
    CannotTell,
    Differs,
}

/// What a part found.
struct Part {
    name: &'static str,
    verdict: Verdict,
    json: Value,
    show: Box<dyn Fn()>,
}

/// Runs the command.
pub(crate) fn run(args: &Check, config: &Config) -> ExitCode {
    let parts = match parts(args, config) {
        Ok(parts) => parts,
        Err(error) => return exit::of(Err(error)),
    };
    match args.json {
        true => out!("{:#}", whole(&parts)),
        false => show(&parts),
    }
    ExitCode::from(match parts.iter().map(|part| part.verdict).max() {
        Some(Verdict::Differs) => exit::DIFFERS,
        Some(Verdict::CannotTell) => exit::CANNOT_TELL,
        Some(Verdict::Good) | None => exit::DONE,
    })
}

fn parts(args: &Check, config: &Config) -> Result<Vec<Part>, Error> {
    let mut parts = Vec::new();
    if args.firewall {
        let report = firewall::look(config)?;
        let (verdict, json) = (firewall::verdict(&report), json!(report));
        parts.push(Part { name: "firewall", verdict, json, show: Box::new(move || firewall::show(&report)) });
    }
    if args.drbd {
        let findings = drbd::look(&config.state.dir)?;
        let (verdict, json) = (drbd::verdict(&findings), json!({ "findings": findings }));
        parts.push(Part { name: "drbd", verdict, json, show: Box::new(move || drbd::show(&findings)) });
    }
    Ok(parts)
}

/// One part is its own report; several stand under their names.
fn whole(parts: &[Part]) -> Value {
    match parts {
        [only] => only.json.clone(),
        parts => parts.iter().map(|part| (part.name.to_owned(), part.json.clone())).collect(),
    }
}

fn show(parts: &[Part]) {
    for (at, part) in parts.iter().enumerate() {
        if parts.len() > 1 {
            let before = if at == 0 { "" } else { "\n" };
            out!("{before}{}:", part.name);
        }
        (part.show)();
    }
}
