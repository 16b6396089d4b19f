//! The reader compared with drbdadm over the trees in `tests/trees`.
//!
//! drbdadm 9 and drbdadm-84 were asked about each tree (`drbdadm -d -v -c TREE/drbd.conf dump-xml`, and `dump` for whose resources are
//! this host's). What they answered is in `tests/answers`, so that this compares without them; an ignored test asks the installed ones
//! again. What either takes is taken, and what it means is the same; what both refuse is refused, at the same line.
//!
//! A tree whose name begins with `differs-` is one where this reader differs on purpose: see the list in the crate's documentation.

mod ask;
mod facts;
mod xml;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use drbd_conf::{Config, Disk, Mistakes, Node, read};

use ask::{Answer, Dialect};

/// Mistakes of which drbdadm has the line of the whole resource, or that of the file's end, where we have the statement's.
const OTHER_LINES: &[&str] = &["refused-mesh-stranger", "refused-mixed-volumes", "refused-stacked-nowhere"];

fn trees() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/trees");
    let mut trees: Vec<PathBuf> =
        fs::read_dir(root).expect("the trees").map(|tree| tree.expect("a tree").path()).collect();
    trees.sort();
    trees
}

fn name(tree: &Path) -> String {
    tree.file_name().expect("a name").to_string_lossy().into_owned()
}

/// The host that a tree is read for: its first line may say which.
fn node(tree: &Path) -> Node {
    let text = fs::read_to_string(tree.join("drbd.conf")).expect("a configuration");
    let named = text.lines().next().and_then(|line| line.strip_prefix("# node: "));
    Node { name: named.unwrap_or("alice").to_owned(), addresses: Vec::new() }
}

fn ours(tree: &Path) -> Result<Config, Mistakes> {
    read(&tree.join("drbd.conf"), &node(tree), &Disk)
}

#[test]
fn there_are_enough_trees() {
    let trees = trees();
    let refused = trees.iter().filter(|tree| name(tree).starts_with("refused-")).count();
    assert!(trees.len() >= 80 && refused >= 40, "{} trees, {refused} of them refused", trees.len());
}

#[test]
fn what_drbdadm_takes_means_the_same() {
    let mut wrong = Vec::new();
    for tree in trees().iter().filter(|tree| !name(tree).starts_with("differs-")) {
        let ours = ours(tree);
        for dialect in Dialect::ALL {
            let Answer::Taken(theirs) = ask::kept(&name(tree), dialect) else { continue };
            let theirs = facts::of_xml(&xml::parse(&theirs));
            match &ours {
                Err(mistakes) => wrong.push(format!("{} is taken by {dialect:?}: {mistakes}", name(tree))),
                Ok(config) => {
                    wrong.extend(difference(&name(tree), dialect, &theirs, &facts::of_config(config, dialect)))
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn difference(tree: &str, dialect: Dialect, theirs: &BTreeSet<String>, ours: &BTreeSet<String>) -> Vec<String> {
    let lacking = theirs.difference(ours).map(|fact| format!("{tree}, {dialect:?}: drbdadm alone has {fact}"));
    let own = ours.difference(theirs).map(|fact| format!("{tree}, {dialect:?}: only we have {fact}"));
    lacking.chain(own).collect()
}

#[test]
fn what_drbdadm_refuses_is_refused_where_it_stands() {
    let mut wrong = Vec::new();
    for tree in trees().iter().filter(|tree| !name(tree).starts_with("differs-")) {
        let answers = Dialect::ALL.map(|dialect| ask::kept(&name(tree), dialect));
        let [Answer::Refused(first), Answer::Refused(_)] = &answers else { continue };
        match ours(tree) {
            Ok(_) => wrong.push(format!("{}: drbdadm says {first}", name(tree))),
            Err(mistakes) => wrong.extend(elsewhere(&name(tree), &mistakes, &answers)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Where one of theirs stands that none of ours does.
fn elsewhere(tree: &str, mistakes: &Mistakes, answers: &[Answer; 2]) -> Option<String> {
    let lines: BTreeSet<u32> = mistakes.told.iter().map(|mistake| mistake.place.line).collect();
    let theirs: Vec<u32> = answers.iter().filter_map(Answer::line).collect();
    // Where it has lost the line it says 0.
    let same = theirs.is_empty() || theirs.contains(&0) || theirs.iter().any(|line| lines.contains(line));
    (!same && !OTHER_LINES.contains(&tree)).then(|| format!("{tree}: drbdadm has {theirs:?}, we have {mistakes}"))
}

#[test]
fn what_differs_differs_as_it_is_said() {
    let taken = |tree: &str| {
        let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/trees").join(tree);
        let theirs = Dialect::ALL.map(|dialect| matches!(ask::kept(&name(&tree), dialect), Answer::Taken(_)));
        (theirs.contains(&true), ours(&tree).is_ok())
    };
    assert_eq!(taken("differs-unknown-option"), (false, true));
    assert_eq!(taken("differs-resync-after-nobody"), (true, true));
    assert_eq!(taken("differs-discard-nobody"), (true, false));
    assert_eq!(taken("differs-module-version"), (false, true));
    assert_eq!(taken("differs-no-hosts"), (true, false));
    assert_eq!(taken("differs-no-value"), (true, false));
    assert_eq!(taken("differs-line-in-quotes"), (true, false));
}

/// With `DRBD_CONF_KEEP` set, what is answered is kept from then on.
#[test]
#[ignore = "needs drbd-utils: cargo xtask test"]
fn the_installed_drbdadm_answers_as_it_did() {
    let keep = std::env::var_os("DRBD_CONF_KEEP").is_some();
    let mut changed = Vec::new();
    for tree in trees() {
        for dialect in Dialect::ALL {
            let answer = ask::installed(&tree, &node(&tree).name, dialect);
            if keep {
                ask::keep(&name(&tree), dialect, &answer);
            } else if answer != ask::kept(&name(&tree), dialect) {
                changed.push(format!("{} {dialect:?}: {answer:?}", name(&tree)));
            }
        }
    }
    assert!(changed.is_empty(), "{}", changed.join("\n"));
}
