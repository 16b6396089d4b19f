//! `bascule history`: this host's migrations, as their journals tell them.

use std::path::Path;

use bascule::admission::Side;
use bascule::journal::{self, Entry, Head, JournaledVolume, Listed, Record, Sample, Stage, Story, Timestamp};
use bascule::migrate::chain;
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};
use uuid::Uuid;

use super::exit::Error;

/// The fewest digits of a migration's id that are shown.
const SHORT_MIN: usize = 8;

/// Which columns are durations.
const TIMES: std::ops::Range<usize> = 4..6;

/// Show the migrations of this host: how they ended, or how far they are
///
/// The last hundred that are finished are kept, unless the configuration says otherwise. Times are UTC, as both hosts' journals have them.
#[derive(Debug, Args)]
pub(crate) struct History {
    /// Only this migration, record by record: its id, or the beginning of it
    id: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Only the newest N
    #[arg(long, value_name = "N", conflicts_with = "id")]
    limit: Option<usize>,
}

/// Runs the command.
pub(crate) fn run(args: &History, state_dir: &Path) -> Result<(), Error> {
    let mut all = journal::list(state_dir)?;
    all.reverse();
    let digits = digits(&all);
    if let Some(prefix) = &args.id {
        return print_one(args, find(&all, prefix)?, digits);
    }
    all.truncate(args.limit.unwrap_or(all.len()));
    print_all(args, &all, digits)
}

/// How many digits tell all migrations apart.
fn digits(all: &[Listed]) -> usize {
    let mut ids: Vec<_> = all.iter().map(|listed| listed.id.to_string()).collect();
    ids.sort();
    let common = |pair: &[String]| pair[0].bytes().zip(pair[1].bytes()).take_while(|(a, b)| a == b).count();
    ids.windows(2).map(|pair| common(pair) + 1).fold(SHORT_MIN, usize::max)
}

fn short(id: Uuid, digits: usize) -> String {
    id.to_string().chars().take(digits).collect()
}

fn find<'a>(all: &'a [Listed], prefix: &str) -> Result<&'a Listed, Error> {
    let prefix = prefix.to_lowercase();
    let mut found = all.iter().filter(|listed| listed.id.to_string().starts_with(&prefix));
    match (found.next(), found.count()) {
        (None, _) => Err(format!("No migration's id begins with {prefix}: bascule history").into()),
        (Some(listed), 0) => Ok(listed),
        (Some(_), others) => {
            Err(format!("The ids of {} migrations begin with {prefix}: give more of it", others + 1).into())
        }
    }
}

fn print_all(args: &History, all: &[Listed], digits: usize) -> Result<(), Error> {
    match args.json {
        true => out!("{}", serde_json::to_string_pretty(&all.iter().map(as_json).collect::<Vec<_>>())?),
        false if all.is_empty() => out!("No migration has a journal here."),
        false => out!("{}", table(all, digits).trim_fmt()),
    }
    Ok(())
}

fn as_json(listed: &Listed) -> Value {
    let Listed { id, story, held, holder } = listed;
    match story {
        Ok(story) => {
            json!({ "id": id, "held": held, "holder": holder, "stage": story.stage(), "story": without_links(story) })
        }
        Err(error) => json!({ "id": id, "held": held, "holder": holder, "error": chain(error) }),
    }
}

/// How to connect a volume again has the connection's shared secret in it, which is nothing to print.
fn without_links(story: &Story) -> Story {
    let mut story = story.clone();
    story.head.volumes.iter_mut().for_each(|volume| volume.link = None);
    story
}

fn table(all: &[Listed], digits: usize) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["When", "Domain", "Direction", "Outcome", "Downtime", "Total", "ID"]);
    for (number, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if TIMES.contains(&number) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for listed in all {
        table.add_row(match &listed.story {
            Ok(story) => row(listed, story, digits),
            Err(_) => unreadable(&short(listed.id, digits)),
        });
    }
    table
}

fn row(listed: &Listed, story: &Story, digits: usize) -> [String; 7] {
    let receipt = |field| receipt_s(story, field).unwrap_or_default();
    [
        story.opened_at.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        story.head.name.clone(),
        direction(&story.head),
        outcome(listed, story, digits),
        receipt("downtime_ms"),
        receipt("total_ms"),
        short(listed.id, digits),
    ]
}

/// What is wrong with it is too long for a table.
fn unreadable(id: &str) -> [String; 7] {
    ["", "", "", &format!("cannot be read: bascule history {id}"), "", "", id].map(str::to_owned)
}

fn direction(head: &Head) -> String {
    let peer = if head.peer.node.is_empty() { &head.peer.host } else { &head.peer.node };
    match head.side {
        Side::Outgoing => format!("to {peer}"),
        Side::Incoming => format!("from {peer}"),
    }
}

fn outcome(listed: &Listed, story: &Story, digits: usize) -> String {
    let stage = match story.stage() {
        Stage::Done(outcome) => return outcome.to_string(),
        Stage::Open => "open".to_owned(),
        stage => format!("open ({stage})"),
    };
    match (listed.held, listed.holder) {
        (true, Some(pid)) => format!("{stage}, process {pid} works on it"),
        (true, None) => format!("{stage}, a process works on it"),
        (false, _) => format!("{stage}, nobody works on it: bascule recover {}", short(listed.id, digits)),
    }
}

/// A time of the receipt, in seconds.
fn receipt_s(story: &Story, field: &str) -> Option<String> {
    let ms = story.receipt()?.get(field)?.as_f64()?;
    Some(format!("{:.3} s", ms / 1e3))
}

fn print_one(args: &History, listed: &Listed, digits: usize) -> Result<(), Error> {
    if args.json {
        out!("{}", serde_json::to_string_pretty(&as_json(listed))?);
        return Ok(());
    }
    // An error is one of the command here: there is nothing else to show.
    match &listed.story {
        Ok(story) => lines(listed, story, digits).iter().for_each(|line| out!("{line}")),
        Err(error) => return Err(chain(error).into()),
    }
    Ok(())
}

fn lines(listed: &Listed, story: &Story, digits: usize) -> Vec<String> {
    let head = &story.head;
    let domid = head.domid.map(|domid| format!(", domid {domid} at the source")).unwrap_or_default();
    let mut lines = vec![
        format!("{} {}: {}", head.name, direction(head), outcome(listed, story, digits)),
        format!("  migration    {}, {}", head.id, head.handover),
        format!("  domain       {}{domid}", head.uuid),
        format!("  peer         {} port {}", head.peer.host, head.peer.port),
    ];
    lines.extend(head.volumes.iter().map(volume));
    let reboot = if story.rebooted() { "; this host has been booted since" } else { "" };
    lines.push(format!("  opened       by process {}, {}{reboot}", head.pid, head.program));
    if let (Some(downtime), Some(total)) = (receipt_s(story, "downtime_ms"), receipt_s(story, "total_ms")) {
        lines.push(format!("  receipt      downtime {downtime}, total {total}; all of it with --json"));
    }
    lines.push(String::new());
    lines.push(line(story.opened_at, "open", ""));
    lines.extend(story.entries.iter().map(entry));
    lines.extend(story.torn.then(|| "  A record follows that is not whole: it counts for nothing.".to_owned()));
    lines
}

fn volume(volume: &JournaledVolume) -> String {
    let two = if volume.two_primaries { ", two Primaries allowed before" } else { "" };
    format!("  volume       {} minor {}{two}", volume.id, volume.minor)
}

fn entry(entry: &Entry) -> String {
    line(entry.at, entry.record.keyword(), &words(&entry.record))
}

fn line(at: Timestamp, keyword: &str, words: &str) -> String {
    format!("  {at:.6}  {keyword:<8}  {words}").trim_end().to_owned()
}

/// What a record says beside its keyword.
fn words(record: &Record) -> String {
    match record {
        Record::Released { handover, samples } => {
            let samples = samples.iter().map(sample).collect::<Vec<_>>();
            format!("{handover}; {}", samples.join("; "))
        }
        Record::Go | Record::Held | Record::Owned | Record::Started => String::new(),
        Record::Copy { domid } | Record::Ready { domid, .. } => format!("domid {domid}"),
        Record::Allowed { resource } => format!("two Primaries of {resource}"),
        Record::Returned { reason, .. } | Record::Aborted { reason } => reason.clone(),
        Record::Note { text } => text.clone(),
        Record::Done { outcome, reason, .. } => format!("{outcome}: {reason}"),
    }
}

/// Counters in sectors of 512 bytes, as recovery compares them.
fn sample(sample: &Sample) -> String {
    let Sample { volume, counters } = sample;
    format!("{volume} written {}, sent {}, received {} sectors", counters.written, counters.sent, counters.received)
}

#[cfg(test)]
mod tests;
