//! What preflight finds, by its code, its node and what it says to type. Every code that there is is awaited by some test, or it is said why
//! no test of the lab can provoke it.

use anyhow::{Context, ensure};
use bascule::preflight::Code;
use bascule_lab::Output;
use bascule_lab::pair::{Pair, VM0};
use serde_json::Value;

use crate::{preflight, text, unfit};

/// A finding that is awaited: its code, its node, and words of its two sentences.
pub(crate) type Awaited = (Code, u8, &'static [&'static str]);

/// What the tests await, all of it.
const PROVOKED: [&[Awaited]; 17] = [
    preflight::NOT_REPLICATED,
    preflight::NOT_THERE,
    preflight::ANOTHER_DISK,
    preflight::HELD_DISK,
    preflight::PAUSED,
    preflight::TWO_PRIMARIES,
    preflight::ALONE,
    preflight::DISKLESS,
    preflight::UNFINISHED,
    crate::NAME_TAKEN,
    crate::NO_ROOM,
    crate::RESYNC,
    crate::NOT_ACCEPTED,
    unfit::UNFIT,
    unfit::NOT_ASKED,
    unfit::OTHER_RESOURCES,
    unfit::LESSER_PROCESSOR,
];

/// Codes that the lab cannot provoke, and why.
pub(crate) const NOT_HERE: [(Code, &str); 2] = [
    (
        Code::NoLogDirty,
        "the nodes boot the one hypervisor of Debian 12 that has shadow paging: any other test needs it",
    ),
    (Code::XenOlder, "both nodes boot one hypervisor, and its tools accept no other version"),
];

#[test]
fn every_code_is_provoked_or_it_is_said_why_not() {
    for code in Code::ALL {
        let provoked = PROVOKED.iter().any(|awaited| awaited.iter().any(|(other, ..)| other == code));
        let excused = NOT_HERE.iter().any(|(other, _)| other == code);
        assert!(provoked != excused, "{code}: provoked {provoked}, said why not {excused}");
    }
    for (code, _, words) in PROVOKED.into_iter().flatten() {
        assert!(!words.is_empty(), "{code}: nothing of what it says is looked at");
    }
}

/// What a migration found, or a dry run.
pub(crate) struct Found(Vec<Value>);

impl Found {
    /// By a dry run of vm0 from node 1.
    pub(crate) fn by(pair: &Pair, options: &str) -> anyhow::Result<Found> {
        Found::of(&pair.migrate(VM0, 1, &format!("--dry-run --json {options}"))?)
    }

    /// In what `migrate --json` printed, which ended as its findings say.
    pub(crate) fn of(output: &Output) -> anyhow::Result<Found> {
        let mut events = output.stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let findings = events.rfind(|event| event["event"] == "findings");
        let findings = findings.and_then(|event| event["findings"].as_array().cloned());
        let found = Found(findings.with_context(|| format!("no findings: {}", text(output)))?);
        ensure!(output.status == if found.errors() == 0 { 0 } else { 4 }, "exit {}: {found:?}", output.status);
        Ok(found)
    }

    pub(crate) fn errors(&self) -> usize {
        self.0.iter().filter(|finding| finding["severity"] == "error").count()
    }

    /// Whether anything of this code was found.
    pub(crate) fn has(&self, code: Code) -> bool {
        self.0.iter().any(|finding| finding["code"] == code.name())
    }

    /// All of these were found.
    pub(crate) fn all(&self, awaited: &[Awaited]) -> anyhow::Result<()> {
        for (code, nr, words) in awaited {
            let fits = |finding: &Value| {
                let said = format!("{} {}", finding["found"], finding["remedy"]);
                finding["code"] == code.name()
                    && finding["node"] == format!("node{nr}")
                    && words.iter().all(|word| said.contains(word))
            };
            ensure!(self.0.iter().any(fits), "no {code} on node{nr} with {words:?}: {self:?}");
        }
        Ok(())
    }
}

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|finding| {
            let word = |key: &str| finding[key].as_str().unwrap_or_default();
            write!(
                f,
                "\n{} {}: {} [{}] {}",
                word("severity"),
                word("node"),
                word("found"),
                word("code"),
                word("remedy")
            )
        })
    }
}
