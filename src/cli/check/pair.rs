//! `bascule check --peer`: this host and another one.

use bascule::checkup::ask::{Answer, ask};
use bascule::checkup::{Facts, Finding, Level, Ways, compare, guests};
use bascule::config::Config;
use bascule::host::{self, Caller};
use serde_json::{Value, json};

use super::super::unfinished;
use super::Part;

const NAME: &str = "pair";
const GOOD: &str = "Nothing between the two hosts stands against domains that move.";

pub(super) fn part((peer, port): (&str, u16), config: &Config, ways: &Ways) -> Part {
    let node = host::node_name();
    if !ways.is_root {
        return Part::of(NAME, vec![only_root(node)], GOOD);
    }
    let caller = Caller { node: &node, state_dir: &config.state.dir, security: &config.security };
    let bounds = config.timeouts.source;
    let answer = ask(caller, (peer, port), bounds.connect, bounds.answer);
    let mine = match &answer {
        Answer::Met(meeting) => Some(Facts::look(&node, ways.toolstack(), ways.replication(), meeting.local)),
        _ => None,
    };
    // Journals that cannot be read are the host's own finding.
    let migrating = unfinished::resources(&config.state.dir).unwrap_or_default();
    let findings = compare(&node, peer, &answer, mine.as_ref(), &guests(ways), &migrating);
    let mut part = Part::of(NAME, findings, GOOD);
    part.json["here"] = json!(mine);
    part.json["there"] = told(&answer);
    part
}

/// The key by which this host is known is root's.
fn only_root(node: String) -> Finding {
    Finding {
        code: "not-root".into(),
        severity: Level::CannotTell,
        node,
        found: "Only root can ask a peer".into(),
        remedy: "sudo bascule check --peer HOST".into(),
    }
}

fn told(answer: &Answer) -> Value {
    match answer {
        Answer::Met(meeting) => json!(meeting.theirs),
        _ => Value::Null,
    }
}
