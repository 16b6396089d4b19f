//! `bascule pair`, `bascule peers` and `bascule unpair`.

use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use bascule::config::Config;
use bascule::host;
use bascule::journal;
use bascule::pair::{self, Code, Offer};
use bascule::plan::RELOCATION_PORT;
use bascule::stream::Cancel;
use bascule::tls::{Fingerprint, Identity, Pin, Pins};
use clap::Args;
use comfy_table::Table;

use super::exit::Error;

/// Let this host and another one know each other's keys
///
/// Without HOST, this host is the one that is visited: it shows a code, and waits for the other one. There, type
/// `bascule pair THIS-HOST` and the code. Both daemons' relocation ports need not be open to each other: only the first host's to the second.
/// The code holds a part of this host's fingerprint and a secret, so that nobody between the two can take the place of either. It is good once.
#[derive(Debug, Args)]
pub(crate) struct Pair {
    /// The host that shows the code, by name or address; it must run `bascule serve`
    host: Option<String>,
    /// The code, instead of being asked for it
    #[arg(long, requires = "host")]
    code: Option<Code>,
    /// The other host's relocation port
    #[arg(short, long, default_value_t = RELOCATION_PORT, requires = "host")]
    port: u16,
    /// How long to wait, in seconds: for the other host to come, or to answer
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: Option<u64>,
    /// Print JSON: the code, while waiting, and the peer, each on a line
    #[arg(long)]
    json: bool,
}

/// How long a person may take to type a code.
const VISIT_WAIT: Duration = Duration::from_secs(600);
/// How long the other host may take to answer.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// Show the hosts that this one is paired with, and this one's own fingerprint
#[derive(Debug, Args)]
pub(crate) struct Peers {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Forget a host: it can send no domains here any more, and none are sent to it
///
/// Connections that it has go on. Do the same there.
#[derive(Debug, Args)]
pub(crate) struct Unpair {
    /// Its name or its fingerprint, as `bascule peers` shows them
    peer: String,
    /// Also while a migration is unfinished: its key is not to be trusted any more. What is in doubt then stays so until a person decides
    #[arg(long)]
    force: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Pair, config: &Config) -> Result<(), Error> {
    if config.security.authority.is_some() {
        return Err("The configuration's [security] has certificates: hosts are not paired with those".into());
    }
    let pin = match &args.host {
        None => visited(args, &config.state.dir)?,
        Some(host) => visit(args, &config.state.dir, host)?,
    };
    match args.json {
        true => out!("{}", serde_json::json!({ "event": "paired", "peer": pin })),
        false => out!("Paired with {} ({}), whose key is {}", pin.name, pin.address, pin.fingerprint),
    }
    Ok(())
}

fn visited(args: &Pair, state_dir: &Path) -> Result<Pin, Error> {
    let offer = Offer::open(host::RUN_DIR.as_ref(), state_dir)?;
    let (node, code) = (host::node_name(), offer.code());
    match args.json {
        true => out!("{}", serde_json::json!({ "event": "code", "node": node, "code": code.to_string() })),
        false => out!(
            "On the other host, type:\n\n    bascule pair {node} --code {code}\n\nwhere {node} may be any name or address of this host. Waiting for it ..."
        ),
    }
    let cancel = Cancel::default();
    super::serve::cancel_on_signal(&cancel)?;
    let wait = args.timeout.map_or(VISIT_WAIT, Duration::from_secs);
    offer.wait(state_dir, Instant::now() + wait, &cancel)
}

fn visit(args: &Pair, state_dir: &Path, host: &str) -> Result<Pin, Error> {
    let code = match &args.code {
        Some(code) => code.clone(),
        None => ask(host)?,
    };
    let timeout = args.timeout.map_or(ANSWER_WAIT, Duration::from_secs);
    pair::join(state_dir, &host::node_name(), (host, args.port), &code, timeout)
}

fn ask(host: &str) -> Result<Code, Error> {
    let input = std::io::stdin();
    if input.is_terminal() {
        let mut terminal = std::io::stderr();
        write!(terminal, "The code that bascule pair shows on {host}: ")?;
        terminal.flush()?;
    }
    let mut line = String::new();
    input.lock().read_line(&mut line)?;
    Ok(line.trim().parse::<Code>().map_err(|why| format!("This is no code: {why}"))?)
}

/// Shows whom this host knows.
pub(crate) fn peers(args: &Peers, state_dir: &Path) -> Result<(), Error> {
    let own = Identity::load_or_make(state_dir)?.fingerprint();
    let pins = Pins::read(state_dir)?;
    if args.json {
        let pins: Vec<&Pin> = pins.iter().collect();
        out!("{}", serde_json::json!({ "fingerprint": own.to_string(), "peers": pins }));
        return Ok(());
    }
    out!("{} is {own}", host::node_name());
    if pins.iter().next().is_none() {
        out!("It is paired with nobody: bascule pair");
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["Name", "Address", "Since", "Fingerprint"]);
    for Pin { name, address, fingerprint, paired_at } in pins.iter() {
        table.add_row([name.clone(), address.clone(), paired_at.strftime("%F").to_string(), fingerprint.to_string()]);
    }
    out!("{table}");
    Ok(())
}

/// Hosts that do not know each other any more cannot ask each other which of them has the domain.
fn is_anything_unfinished(state_dir: &Path) -> Result<bool, Error> {
    let unfinished = journal::unfinished(state_dir)?;
    Ok(unfinished.iter().any(|listed| !listed.story.as_ref().is_ok_and(journal::Story::is_done)))
}

const UNFINISHED: &str = "A migration is unfinished on this host, and only hosts that know each other can finish it: bascule recover; \
    if the other host's key has fallen into wrong hands: --force";

/// Forgets one.
pub(crate) fn unpair(args: &Unpair, state_dir: &Path) -> Result<(), Error> {
    let (pins, key) = (Pins::read(state_dir)?, args.peer.parse::<Fingerprint>().ok());
    let meant: Vec<&Pin> = pins.iter().filter(|pin| pin.name == args.peer || Some(pin.fingerprint) == key).collect();
    match meant.as_slice() {
        [] => Err(format!("No peer is called {}: bascule peers", args.peer).into()),
        [_] if !args.force && is_anything_unfinished(state_dir)? => Err(UNFINISHED.into()),
        [pin] => {
            pin.forget(state_dir)?;
            out!("{} is not known any more. There: bascule unpair {}", pin.name, host::node_name());
            Ok(())
        }
        _ => Err(format!("Several peers are called {}: give the fingerprint of one (bascule peers)", args.peer).into()),
    }
}

#[cfg(test)]
mod tests {
    use bascule::journal::Journal;
    use jiff::Timestamp;

    use super::*;

    const FINISHED: &str = include_str!("../journal/samples/finished.journal");
    const ID: &str = "6f1c5b1e-3d0a-4c57-9b5e-2f6a1d0c9e77";

    #[test]
    fn a_peer_is_not_forgotten_while_a_migration_needs_its_word() {
        let dir = tempfile::tempdir().expect("a directory");
        let key = Fingerprint([7; 32]);
        let pin = Pin { name: "node2".into(), address: "node2".into(), fingerprint: key, paired_at: Timestamp::now() };
        let forget = |force| unpair(&Unpair { peer: "node2".into(), force }, dir.path());
        let is_known = || Pins::read(dir.path()).expect("read").find(&key).is_some();
        // A finished one needs nobody.
        std::fs::write(dir.path().join(format!("{ID}.journal")), FINISHED).expect("written");
        pin.keep(dir.path()).expect("kept");
        forget(false).expect("forgotten");
        assert!(!is_known());

        pin.keep(dir.path()).expect("kept");
        let head = journal::read(dir.path(), ID.parse().expect("an id")).expect("read").expect("there").head;
        let open = Journal::create(dir.path(), journal::Head { id: uuid::Uuid::from_u128(1), ..head }).expect("made");
        assert!(forget(false).expect_err("needed").to_string().contains("bascule recover"));
        assert!(is_known());
        drop(open);
        assert!(forget(false).is_err());
        forget(true).expect("forgotten");
        assert!(!is_known());
    }
}
