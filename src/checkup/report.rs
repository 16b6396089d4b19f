//! What a check says.

use serde::Serialize;

pub use crate::firewall::Level;
use crate::protocol;

/// The longest text of a finding, in characters: what a peer tells is in it.
const TEXT_LEN_MAX: usize = 1000;

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// A stable code, such as `xenconsoled-missing`.
    pub code: String,
    /// How much it matters.
    pub severity: Level,
    /// The node on which it was found.
    pub node: String,
    /// What was found, one sentence.
    pub found: String,
    /// What to do about it, and what to type; empty where nothing has to be done.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

impl From<protocol::Finding> for Finding {
    fn from(finding: protocol::Finding) -> Finding {
        let protocol::Finding { code, severity, node, found, remedy } = finding;
        let severity = match severity {
            protocol::Severity::Warning => Level::Warning,
            protocol::Severity::Error => Level::Error,
        };
        Finding { code, severity, node, found, remedy }
    }
}

/// The findings of one check, as they are made.
pub(super) struct Report {
    node: String,
    findings: Vec<Finding>,
}

impl Report {
    pub(super) fn new(node: &str) -> Report {
        Report { node: node.to_owned(), findings: Vec::new() }
    }

    /// The worst first, else in the order of the looks.
    pub(super) fn findings(mut self) -> Vec<Finding> {
        self.findings.sort_by_key(|finding| finding.severity);
        self.findings
    }

    pub(super) fn error(&mut self, code: &str, found: impl Into<String>, remedy: impl Into<String>) {
        self.add(Level::Error, code, None, found.into(), remedy.into());
    }

    pub(super) fn warning(&mut self, code: &str, found: impl Into<String>, remedy: impl Into<String>) {
        self.add(Level::Warning, code, None, found.into(), remedy.into());
    }

    pub(super) fn cannot_tell(&mut self, code: &str, found: impl Into<String>, remedy: impl Into<String>) {
        self.add(Level::CannotTell, code, None, found.into(), remedy.into());
    }

    pub(super) fn note(&mut self, code: &str, found: impl Into<String>) {
        self.add(Level::Notice, code, None, found.into(), String::new());
    }

    pub(super) fn note_with(&mut self, code: &str, found: impl Into<String>, remedy: impl Into<String>) {
        self.add(Level::Notice, code, None, found.into(), remedy.into());
    }

    /// Of another node than the one that looks.
    pub(super) fn of(&mut self, node: &str, severity: Level, code: &str, found: String, remedy: impl Into<String>) {
        self.add(severity, code, Some(node), found, remedy.into());
    }

    fn add(&mut self, severity: Level, code: &str, node: Option<&str>, found: String, remedy: String) {
        let node = node.unwrap_or(&self.node);
        self.findings.push(Finding {
            code: code.to_owned(),
            severity,
            node: clean(node),
            found: clean(&found),
            remedy: clean(&remedy),
        });
    }
}

/// Without what would move a terminal's cursor, and not without an end.
fn clean(text: &str) -> String {
    text.chars().take(TEXT_LEN_MAX).map(|char| if char.is_control() { ' ' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_comes_first_and_nothing_moves_the_cursor() {
        let mut report = Report::new("node1");
        report.note("a", "it is so");
        report.of("node2\x1b[2J", Level::Error, "b", "x".repeat(5000), "");
        let found = report.findings();
        assert_eq!((found[0].code.as_str(), found[0].node.as_str()), ("b", "node2 [2J"));
        assert_eq!(found[0].found.len(), TEXT_LEN_MAX);
        let json = serde_json::to_string(&found[1]).expect("JSON");
        assert_eq!(json, r#"{"code":"a","severity":"notice","node":"node1","found":"it is so"}"#);
    }
}
