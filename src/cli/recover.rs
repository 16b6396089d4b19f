//! `bascule recover` and `bascule cancel`: a person's word about a migration.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bascule::abandoned::{self, Hands, Settled, examine as examine_left, settle};
use bascule::admission::Side;
use bascule::config::Config;
use bascule::ends::{Over, Patience};
use bascule::fault::Faults;
use bascule::host::{self, Host};
use bascule::journal::{self, Listed, Stage};
use bascule::migrate::chain;
use bascule::orders::Order;
use bascule::plan::Timeouts;
use bascule::recover::{Examination, Recovered, examine, recover, sign_of_life};
use bascule::stream;
use bascule::xen::Context;
use clap::Args;
use uuid::Uuid;

use super::exit::{self, DONE, Error, FAILED, IN_DOUBT};
use super::here::Here;
use super::secured::Secured;
use super::unfinished::{self, Left};
use super::{Bound, source_bound};

/// Finish, or take back, what a process that has died has left: migrations, and domains that it was saving or making
///
/// The daemon does so by itself; this is for looking, for hosts without a daemon, and for saying what no program can know. Prints what
/// it saw, what it concluded and why.
#[derive(Debug, Args)]
pub(crate) struct Recover {
    /// The migration, by its id or the beginning of it, or another id that `bascule list` shows; all unfinished ones unless given
    id: Option<String>,
    /// Only look and conclude; change nothing
    #[arg(long)]
    dry_run: bool,
    /// The other host is dead: its copy of the domain does not run and will not run again. Say this only of a host that is switched off,
    /// or fenced: if it is not true, the domain may run twice
    #[arg(long, requires = "id", conflicts_with = "dry_run")]
    peer_is_dead: bool,
    /// How long to go on asking the other host, in seconds
    #[arg(long, default_value_t = 30)]
    wait: u64,
    /// The bound of a wait in seconds, as `bascule migrate` has it; may be given several times
    #[arg(long = "timeout", value_name = "WAIT=SECONDS", value_parser = source_bound)]
    timeouts: Vec<Bound>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// As the daemon's child: until it is decided
    #[arg(long, hide = true, requires = "id")]
    adopt: bool,
    #[command(flatten)]
    pub(crate) security: Secured,
}

/// Between two tries of the daemon's child, when a person must speak or something stands in the way.
const ADOPT_AGAIN: Duration = Duration::from_secs(5);
/// The longest such pause, where each is twice as long as the one before.
const ADOPT_AGAIN_MAX: Duration = Duration::from_secs(60);

impl Recover {
    /// Whether the daemon has started it.
    pub(crate) fn is_adoption(&self) -> bool {
        self.adopt
    }

    fn timeouts(&self, mut timeouts: Timeouts) -> Timeouts {
        for (name, bound) in &self.timeouts {
            timeouts.set(name, *bound);
        }
        timeouts
    }
}

/// Runs `recover`.
pub(crate) fn run(args: &Recover, config: &Config) -> ExitCode {
    match start(args, config) {
        Ok(code) => ExitCode::from(code),
        Err(error) => exit::fail(FAILED, &chain(error.as_ref())),
    }
}

fn start(args: &Recover, config: &Config) -> Result<u8, Error> {
    let (left, found) = (left(args)?, chosen(args, &config.state.dir));
    let mut worst = DONE;
    for left in &left {
        worst = worst.max(see_to(args, left, &config.state.dir)?);
    }
    // An id that is of the one is not of the other.
    if args.id.is_some() && !left.is_empty() {
        return Ok(worst);
    }
    let found = found?;
    if found.is_empty() {
        if left.is_empty() {
            say(args, "No migration is unfinished on this host.");
        }
        return Ok(worst);
    }
    let told = args.is_adoption().then(|| args.security.settings());
    let here = Here::open(told.as_ref().unwrap_or(&config.security), &config.guests, Faults::none())?;
    let host = here.host(&config.state);
    let timeouts = args.timeouts(config.timeouts.source);
    for listed in found {
        worst = worst.max(treat(args, &host, timeouts, listed)?);
    }
    Ok(worst)
}

/// The unfinished journals that are meant; one that cannot be read is an error, not left out.
fn chosen(args: &Recover, state_dir: &Path) -> Result<Vec<Listed>, Error> {
    let all = journal::unfinished(state_dir)?.into_iter();
    let open = all.filter(|listed| !listed.story.as_ref().is_ok_and(journal::Story::is_done));
    let Some(wanted) = &args.id else { return Ok(open.collect()) };
    let matching: Vec<Listed> = open.filter(|listed| listed.id.to_string().starts_with(wanted.as_str())).collect();
    match matching.len() {
        0 if args.adopt => Ok(Vec::new()),
        0 => Err(format!("No unfinished migration begins with {wanted}: bascule history").into()),
        1 => Ok(matching),
        several => Err(format!("{several} unfinished migrations begin with {wanted}").into()),
    }
}

/// The same of what killed processes have left of domains.
fn left(args: &Recover) -> Result<Vec<Left>, Error> {
    let wanted = |left: &Left| args.id.as_ref().is_none_or(|id| left.id.to_string().starts_with(id.as_str()));
    let mut left = unfinished::left()?;
    left.retain(wanted);
    match &args.id {
        Some(id) if left.len() > 1 => {
            Err(format!("{} ids of domains that were left begin with {id}", left.len()).into())
        }
        Some(id) if args.peer_is_dead && !left.is_empty() => {
            Err(format!("{id} is no migration: nothing of it is the peer's").into())
        }
        _ => Ok(left),
    }
}

fn see_to(args: &Recover, left: &Left, state_dir: &Path) -> Result<u8, Error> {
    let context = Context::open()?;
    if !args.adopt {
        print_left(args, left, &examine_left(&context, &left.charge)?);
    }
    if args.dry_run {
        return Ok(DONE);
    }
    let (run_dir, is_here) = (host::RUN_DIR.as_ref(), &super::saved::refuse_unless_here);
    let hands = Hands { context: &context, run_dir, state_dir, is_here };
    if args.adopt {
        let cancel = stream::Cancel::default();
        super::serve::cancel_on_signal(&cancel)?;
        return Ok(adopt_left(&hands, left, &cancel));
    }
    Ok(match settle(&hands, left.id)? {
        Settled::Held => conclude(args, "Another process works on it, or has done it.", DONE),
        Settled::Done(found) => conclude(args, &format!("Done: {}.", found.deed.words()), DONE),
        Settled::Doubt(found) => conclude(args, &doubt(&found), IN_DOUBT),
    })
}

/// The daemon's child goes on until it is done, or it is told to end. What stands in the way is said once.
fn adopt_left(hands: &Hands<'_>, left: &Left, cancel: &stream::Cancel) -> u8 {
    let (mut said, mut pause) = (String::new(), ADOPT_AGAIN);
    loop {
        let why = match settle(hands, left.id) {
            Ok(Settled::Held) => return DONE,
            Ok(Settled::Done(abandoned::Examination { seen, complete, deed, .. })) => {
                let (domain, seen) = (&left.domain, seen.words());
                tracing::warn!(domain, seen, complete, "its process was killed: {}", deed.words());
                return DONE;
            }
            Ok(Settled::Doubt(found)) => doubt(&found),
            Err(error) => chain(error.as_ref()),
        };
        if said != why {
            tracing::error!(id = %left.id, domain = left.domain, why, "what a killed process has left is not seen to yet");
            said = why;
        }
        if !wait(pause, cancel) {
            return IN_DOUBT;
        }
        pause = (pause * 2).min(ADOPT_AGAIN_MAX);
    }
}

fn doubt(found: &abandoned::Examination) -> String {
    let domid = found.domid.map(|domid| domid.to_string()).unwrap_or_default();
    format!(
        "Domain {domid} has never run, and it is not known who made it. If it was nobody else: bascule destroy {domid}"
    )
}

fn print_left(args: &Recover, left: &Left, found: &abandoned::Examination) {
    if args.json {
        out!("{}", serde_json::json!({ "event": "examined", "left": left, "found": found }));
        return;
    }
    out!("{left}");
    out!("  the domain here is      {}", found.seen.words());
    if left.charge.saving.is_some() {
        out!("  its file is             {}", if found.complete { "complete" } else { "not complete" });
    }
    out!("  so                      {}", found.deed.words());
}

fn treat(args: &Recover, host: &Host<'_>, timeouts: Timeouts, listed: Listed) -> Result<u8, Error> {
    let Listed { id, story, holder, .. } = listed;
    let story = story?;
    if args.peer_is_dead
        && let Some(sign) = sign_of_life(host, &story)?
    {
        return Err(
            format!("{sign}: it is not dead. Nothing was changed; look with bascule recover --dry-run {id}").into()
        );
    }
    if args.peer_is_dead {
        Order::PeerIsDead.give(host.state_dir, id)?;
    }
    if !args.adopt {
        print(args, &examine(host, &story)?);
    }
    if args.dry_run {
        return Ok(DONE);
    }
    let cancel = stream::Cancel::default();
    super::serve::cancel_on_signal(&cancel)?;
    if args.adopt {
        return adopt(host, id, timeouts, &cancel);
    }
    let mut patience = Patience::new(Some(Instant::now() + Duration::from_secs(args.wait)), &cancel);
    match recover(host, id, timeouts, &mut patience)? {
        Recovered::Held => wait_for_other(args, host, id, holder),
        Recovered::Done => Ok(conclude(args, "Nothing is left to do.", DONE)),
        Recovered::Over(Over::Closed { ending, .. }) => Ok(conclude(args, &format!("Done: {ending}."), DONE)),
        Recovered::Over(Over::Doubt(why)) => Ok(conclude(args, &format!("A person must speak: {why}."), IN_DOUBT)),
        Recovered::Over(Over::Left(why)) => {
            Ok(conclude(args, &format!("Not decided yet: {why}. The daemon goes on."), IN_DOUBT))
        }
    }
}

/// The daemon's child goes on until it is decided, or it is told to end.
fn adopt(host: &Host<'_>, id: Uuid, timeouts: Timeouts, cancel: &stream::Cancel) -> Result<u8, Error> {
    loop {
        let mut patience = Patience::new(None, cancel);
        match recover(host, id, timeouts, &mut patience)? {
            Recovered::Held | Recovered::Done | Recovered::Over(Over::Closed { .. }) => return Ok(DONE),
            Recovered::Over(over) => tracing::warn!(%id, ?over, "not decided"),
        }
        if !wait(ADOPT_AGAIN, cancel) {
            return Ok(IN_DOUBT);
        }
    }
}

/// False when it is told to end.
fn wait(pause: Duration, cancel: &stream::Cancel) -> bool {
    let again = Instant::now() + pause;
    while Instant::now() < again && !cancel.requested() {
        std::thread::sleep(Duration::from_millis(100));
    }
    !cancel.requested()
}

/// Another process, the daemon's as a rule, works on it: what it comes to is waited for.
fn wait_for_other(args: &Recover, host: &Host<'_>, id: Uuid, holder: Option<u32>) -> Result<u8, Error> {
    let who = holder.map_or_else(|| "Another process".to_owned(), |pid| format!("Process {pid}"));
    say(args, &format!("{who} works on it."));
    let deadline = Instant::now() + Duration::from_secs(args.wait);
    while Instant::now() < deadline {
        match journal::read(host.state_dir, id)?.map(|story| story.stage()) {
            Some(Stage::Done(done)) => return Ok(conclude(args, &format!("Done: {done}."), DONE)),
            None => return Ok(DONE),
            Some(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
    Ok(conclude(args, "Not decided yet; it goes on.", IN_DOUBT))
}

fn print(args: &Recover, found: &Examination) {
    if args.json {
        out!("{}", serde_json::json!({ "event": "examined", "migration": found }));
        return;
    }
    let Examination { id, domain, side, peer, stage, seen, peer_said, link, conclusion } = found;
    let direction = match side {
        Side::Outgoing => "to",
        Side::Incoming => "from",
    };
    out!("{domain}, {direction} {peer} (migration {id})");
    out!("  the journal here says   {stage}");
    out!("  the domain here is      {seen}");
    if let Some(said) = peer_said {
        out!("  {peer:<23} {said}");
    }
    if let Some(link) = link {
        out!("  the replication link    {link}");
    }
    out!("  so                      {conclusion}");
}

fn say(args: &Recover, text: &str) {
    conclude(args, text, DONE);
}

fn conclude(args: &Recover, text: &str, code: u8) -> u8 {
    match args.json {
        true => out!("{}", serde_json::json!({ "event": "concluded", "text": text, "code": code })),
        false => out!("  {text}"),
    }
    code
}

/// Stop a migration that is under way
///
/// Up to its point of no return; the domain then runs on at the source. After it, the migration is finished and this says so.
#[derive(Debug, Args)]
pub(crate) struct Cancel {
    /// The domain, by name
    domain: String,
    /// How long to wait for the end, in seconds
    #[arg(long, default_value_t = 180)]
    wait: u64,
}

/// Runs `cancel`.
pub(crate) fn cancel(args: &Cancel, state_dir: &Path) -> Result<(), Error> {
    let open = journal::unfinished(state_dir)?.into_iter().filter_map(|listed| listed.story.ok());
    let mut ours = open.filter(|story| !story.is_done() && story.head.name == args.domain);
    let story = ours.next().ok_or_else(|| format!("No migration of {} is under way on this host", args.domain))?;
    if story.head.side == Side::Incoming {
        let peer = &story.head.peer.node;
        return Err(format!("{} is on its way here: cancel it on {peer}", args.domain).into());
    }
    let id = story.head.id;
    Order::Cancel.give(state_dir, id)?;
    let deadline = Instant::now() + Duration::from_secs(args.wait);
    while Instant::now() < deadline {
        match journal::read(state_dir, id)?.map(|story| story.stage()) {
            Some(Stage::Done(journal::Done::Moved)) => {
                return Err(format!("It was too late: {} has moved to {}", args.domain, story.head.peer.node).into());
            }
            Some(Stage::Done(done)) => {
                out!("{}: {done}", args.domain);
                return Ok(());
            }
            None => return Ok(()),
            Some(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
    Err(format!("It has not ended within {} s: bascule recover --dry-run {id}", args.wait).into())
}
