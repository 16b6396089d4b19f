//! What drbdadm says of a tree: the installed one, or what was kept.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Which drbdadm: it chooses by the version of the module, which it can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Nine,
    Eight,
}

impl Dialect {
    pub(crate) const ALL: [Dialect; 2] = [Dialect::Nine, Dialect::Eight];

    fn version(self) -> &'static str {
        match self {
            Dialect::Nine => "9.2.12",
            Dialect::Eight => "8.4.11",
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Dialect::Nine => "9",
            Dialect::Eight => "84",
        }
    }
}

/// An answer, in which the tree's path is `@`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The configuration as XML, and after it one comment for each resource.
    Taken(String),
    /// Why not.
    Refused(String),
}

impl Answer {
    /// The line of the first mistake that has one.
    pub(crate) fn line(&self) -> Option<u32> {
        let Answer::Refused(why) = self else { return None };
        let after = why.split(".conf:").nth(1)?;
        after.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    }
}

pub(crate) fn kept(tree: &str, dialect: Dialect) -> Answer {
    let text = fs::read_to_string(file(tree, dialect)).expect("an answer that was kept");
    match text.split_once('\n').expect("a first line") {
        ("taken", rest) => Answer::Taken(rest.to_owned()),
        (_, rest) => Answer::Refused(rest.to_owned()),
    }
}

pub(crate) fn keep(tree: &str, dialect: Dialect, answer: &Answer) {
    let text = match answer {
        Answer::Taken(text) => format!("taken\n{text}"),
        Answer::Refused(text) => format!("refused\n{text}"),
    };
    fs::write(file(tree, dialect), text).expect("written");
}

fn file(tree: &str, dialect: Dialect) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/answers/{tree}.{}", dialect.suffix()))
}

pub(crate) fn installed(tree: &Path, node: &str, dialect: Dialect) -> Answer {
    let xml = run(tree, node, dialect, "dump-xml");
    if !xml.status.success() {
        return Answer::Refused(cleaned(tree, &xml.stderr));
    }
    let dump = run(tree, node, dialect, "dump");
    let comments = cleaned(tree, &dump.stdout);
    let comments = comments.lines().filter(|line| line.trim_start().starts_with("# resource "));
    let comments: String = comments.map(|line| format!("<!--{}-->\n", line.trim())).collect();
    Answer::Taken(cleaned(tree, &xml.stdout) + &comments)
}

fn run(tree: &Path, node: &str, dialect: Dialect, command: &str) -> Output {
    let mut drbdadm = Command::new("drbdadm");
    drbdadm.arg("-d").arg("-v").arg("-c").arg(tree.join("drbd.conf")).arg(command);
    drbdadm.env("__DRBD_NODE__", node).env("DRBD_DRIVER_VERSION_OVERRIDE", dialect.version());
    drbdadm.stdin(Stdio::null()).output().expect("drbdadm, of the package drbd-utils")
}

/// Without what says that it pretends to be another host.
fn cleaned(tree: &Path, text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text).replace(&tree.display().to_string(), "@");
    let told = text.lines().filter(|line| !line.contains("__DRBD_NODE__") && !line.contains("PRETENDING"));
    told.filter(|line| !line.is_empty()).map(|line| format!("{line}\n")).collect()
}
