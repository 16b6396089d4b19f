//! `bascule check`: this host, and this host and a peer, compared with what migrations need. It changes nothing.

mod drbd;
mod firewall;
mod host;
mod pair;

use std::process::ExitCode;

use bascule::checkup::{Finding, Level, Ways};
use bascule::config::Config;
use bascule::migrate::chain;
use bascule::plan::RELOCATION_PORT;
use clap::Args;
use serde_json::{Value, json};

use super::exit::{self, Error};

/// Compare this host, or this host and a peer, with what migrations need; nothing is changed
///
/// Without an option: everything about this host. Xen and dom0, what libxl runs, the daemon with its keys, directories and unfinished migrations, what
/// older toolstacks have left, the clock; and what --drbd and --firewall look at. Every finding has a code that stays the same, the node, and what to type.
///
/// With --peer: this host asks the daemon of HOST, connected as a migration is, what that one is like, and compares: programs, Xen, DRBD and each
/// resource as both see it, clocks, the link between them, bridges that running domains need, memory.
///
/// With --firewall: what nftables and iptables do with connections to the relocation port, from each peer and from everybody else, and rules that would close it to all but the peers. Peers are those of hosts-allow; where that allows every address, the hosts that this one is
/// paired with (or those of security.names, with certificates) and security.in-clear. Where it hangs on something that cannot be known (the interface, a
/// rate, a mark), the rule is named and nothing is claimed.
///
/// With --drbd: whether resources are connected and up to date, what DRBD's configuration files have for good and what the kernel has now, where the two
/// differ, and what in either is a danger to domains that move, each with the file and the line.
///
/// Most of it needs root. What could not be looked at is said.
#[derive(Debug, Args)]
#[command(after_help = exit::CHECK_TABLE)]
pub(crate) struct Check {
    /// Check the firewall; needs root
    #[arg(long)]
    firewall: bool,
    /// Check DRBD; needs root to see secrets that differ
    #[arg(long)]
    drbd: bool,
    /// Check this host and HOST, by name or address, together; it must run `bascule serve`
    #[arg(long, value_name = "HOST")]
    peer: Option<String>,
    /// The peer's relocation port
    #[arg(short, long, default_value_t = RELOCATION_PORT, requires = "peer")]
    port: u16,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How good what a part found is; the worst of all parts becomes the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Good,
    CannotTell,
    Warning,
    Differs,
}

impl Verdict {
    fn of(findings: &[Finding]) -> Verdict {
        match findings.iter().map(|finding| finding.severity).min() {
            Some(Level::Error) => Verdict::Differs,
            Some(Level::Warning) => Verdict::Warning,
            Some(Level::CannotTell) => Verdict::CannotTell,
            Some(Level::Notice) | None => Verdict::Good,
        }
    }

    fn code(self) -> u8 {
        match self {
            Verdict::Good => exit::DONE,
            Verdict::CannotTell => exit::CANNOT_TELL,
            Verdict::Warning => exit::WARNS,
            Verdict::Differs => exit::DIFFERS,
        }
    }
}

/// What a part found.
struct Part {
    name: &'static str,
    verdict: Verdict,
    json: Value,
    show: Box<dyn Fn()>,
}

impl Part {
    /// Of a part that has findings and nothing else; `good` is what is printed where none is more than a note.
    fn of(name: &'static str, findings: Vec<Finding>, good: &'static str) -> Part {
        let (verdict, json) = (Verdict::of(&findings), json!({ "findings": findings }));
        let show = move || {
            findings.iter().for_each(print);
            if verdict == Verdict::Good {
                out!("{good}");
            }
        };
        Part { name, verdict, json, show: Box::new(show) }
    }

    /// Of a part that could not look.
    fn blind(name: &'static str, error: &Error) -> Part {
        let why = chain(error.as_ref());
        let json = json!({ "cannot-tell": why });
        Part { name, verdict: Verdict::CannotTell, json, show: Box::new(move || out!("cannot tell: {why}")) }
    }
}

/// Runs the command.
pub(crate) fn run(args: &Check, config: &Config) -> ExitCode {
    let parts = parts(args, config);
    match args.json {
        true => out!("{:#}", whole(&parts)),
        false => show(&parts),
    }
    let worst = parts.iter().map(|part| part.verdict).max();
    ExitCode::from(worst.unwrap_or(Verdict::Good).code())
}

fn parts(args: &Check, config: &Config) -> Vec<Part> {
    let all = !(args.firewall || args.drbd || args.peer.is_some());
    // The firewall alone needs neither Xen nor DRBD.
    let ways = (all || args.drbd || args.peer.is_some()).then(Ways::open);
    let mut parts = Vec::new();
    if let Some(ways) = &ways {
        if all {
            parts.push(host::part(config, ways));
        }
        if all || args.drbd {
            parts.push(drbd::part(&config.state.dir, ways).unwrap_or_else(|error| Part::blind(drbd::NAME, &error)));
        }
        if let Some(peer) = &args.peer {
            parts.push(pair::part((peer, args.port), config, ways));
        }
    }
    if all || args.firewall {
        parts.push(firewall::part(config).unwrap_or_else(|error| Part::blind(firewall::NAME, &error)));
    }
    parts
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

fn print(Finding { code, severity, node, found, remedy }: &Finding) {
    out!("{}: {node}: {found} [{code}]", word(*severity));
    if !remedy.is_empty() {
        out!("  -> {remedy}");
    }
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warning => "warning",
        Level::CannotTell => "cannot tell",
        Level::Notice => "note",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_is_the_verdict_and_has_its_code() {
        let finding = |severity| Finding {
            code: "c".into(),
            severity,
            node: "n".into(),
            found: "f".into(),
            remedy: String::new(),
        };
        let rows: [(&[Level], u8); 5] = [
            (&[], 0),
            (&[Level::Notice], 0),
            (&[Level::Notice, Level::CannotTell], 6),
            (&[Level::Warning, Level::CannotTell], 7),
            (&[Level::Notice, Level::Error, Level::Warning], 5),
        ];
        for (levels, code) in rows {
            let findings: Vec<Finding> = levels.iter().copied().map(finding).collect();
            assert_eq!(Verdict::of(&findings).code(), code, "{levels:?}");
        }
    }
}
