//! xl and bascule take turns with the same domains. Who made a domain, and who then does what, is tested here or where the table says;
//! what a made domain is to either, a restored one is too.
//!
//! | | bascule, made by xl | xl, made by bascule | xl, came by `bascule migrate` | bascule, came by `xl migrate` |
//! |---|---|---|---|---|
//! | reboots it | here | `life` | here | as made by xl |
//! | pauses it, lets it run, renames it | here | here | | |
//! | shuts it down, destroys it | here | here | here | here |
//! | saves it, restores its file | `saved` | `saved` | | |
//! | moves it | `a_domain_that_xl_started_moves`, `life` | here | here | |
//!
//! `xl migrate` needs a volume that is Primary on both hosts. A disk of `drbd:` never is: the destination's block-drbd refuses, and the domain
//! stays. One that is attached straight to DRBD's device moves, where an administrator makes both Primary.

use anyhow::ensure;
use bascule_lab::pair::{MIGRATION_LIMIT, Pair, VM0, domains};
use bascule_lab::{Output, lan};

use crate::life::{comes_back, processes, watchers};
use crate::{VERIFY_LIMIT, on_the_pair, refused, settled, text, whole};

/// Where `xl migrate-receive` listens: under emulation ssh would take three times as long.
const XL_PORT: u16 = 8003;

/// Nothing is left of any domain on the node: none, nobody who watches one, and the volume let go.
fn nothing_left(pair: &Pair, nr: u8) -> anyhow::Result<()> {
    pair.wait("the domain is gone", || Ok(domains(pair.node(nr))?.is_empty()))?;
    pair.wait("its volume is Secondary", || Ok(pair.roles(VM0, nr)?.iter().all(|roles| roles.here == "Secondary")))?;
    watchers(pair, nr, 0)?;
    pair.wait("xl's process has ended", || Ok(processes(pair, nr, "-x xl")? == 0))
}

/// Runs commands up to one that pauses the domain, sees that it is paused, then runs the others.
fn paused_between(pair: &Pair, before: &str, after: &str) -> anyhow::Result<()> {
    let list = pair.node(1).ok_for(&format!("{before} && xl list vm0 && {after}"), VERIFY_LIMIT)?;
    ensure!(list.contains(" --p--- "), "it is not paused: {list}");
    Ok(())
}

#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn xl_and_bascule_take_turns_with_the_same_domains() {
    on_the_pair("pairs", |pair| {
        made_by_xl(pair)?;
        made_by_bascule(pair)?;
        moved_by_bascule(pair)?;
        moved_by_xl(pair)
    });
}

/// What follows a reboot and a shutdown is done by xl's own process, once.
fn made_by_xl(pair: &Pair) -> anyhow::Result<()> {
    let node = pair.node(1);
    let create = format!("xl create -p {} && bascule unpause vm0 && bascule pause vm0", VM0.file());
    paused_between(pair, &create, "xl unpause vm0")?;
    pair.heard(VM0, 1)?;
    comes_back(pair, VM0, 1, || node.ok("bascule reboot vm0").map(drop))?;
    watchers(pair, 1, 0)?;
    node.ok_for("bascule rename vm0 web && bascule shutdown --wait web", VERIFY_LIMIT)?;
    nothing_left(pair, 1)?;
    node.ok_for(&format!("xl create -p {} && bascule destroy vm0", VM0.file()), VERIFY_LIMIT)?;
    nothing_left(pair, 1)
}

fn made_by_bascule(pair: &Pair) -> anyhow::Result<()> {
    let create = format!("bascule create -p {}", VM0.file());
    paused_between(
        pair,
        &format!("{create} && xl unpause vm0 && xl pause vm0"),
        "bascule unpause vm0 && xl rename vm0 web && bascule destroy web",
    )?;
    nothing_left(pair, 1)?;
    pair.node(1).ok_for(&format!("{create} && xl destroy vm0"), VERIFY_LIMIT)?;
    nothing_left(pair, 1)
}

fn moved_by_bascule(pair: &Pair) -> anyhow::Result<()> {
    let since = lan::monotonic_now();
    pair.create(VM0, 1)?;
    let output = pair.migrate(VM0, 1, "")?;
    ensure!(output.success(), "{}", text(&output));
    pair.check(VM0, 2)?;
    let config = pair.node(2).ok("xl list -l vm0")?;
    ensure!(config.contains("\"name\": \"vm0\"") && config.contains("block-drbd"), "{config}");
    comes_back(pair, VM0, 2, || pair.node(2).ok("xl reboot vm0").map(drop))?;

    let output = moves_by_xl(pair, 2)?;
    refused(&output, 1, &["resuming at sender"])?;
    pair.heard_again(VM0, 2)?;
    settled(pair, 2)?;
    let said = pair.node(1).ok("cat /run/xl-receive")?;
    ensure!(said.contains("block-drbd"), "it failed otherwise: {said}");
    whole(pair, VM0, since)?;
    watchers(pair, 2, 1)?;
    pair.node(2).ok_for("xl destroy vm0", VERIFY_LIMIT)?;
    nothing_left(pair, 2)
}

fn moved_by_xl(pair: &Pair) -> anyhow::Result<()> {
    let since = lan::monotonic_now();
    for command in ["drbdadm net-options --allow-two-primaries=yes r0", "drbdadm primary r0"] {
        pair.lab().nodes().iter().try_for_each(|node| node.ok(command).map(drop))?;
    }
    let file = format!("sed 's#^disk = .*#disk = [ \"phy:/dev/drbd0,xvda,w\" ]#' {} >/run/vm0.cfg", VM0.file());
    pair.node(1).ok_for(&format!("{file} && bascule create /run/vm0.cfg"), VERIFY_LIMIT)?;
    pair.heard(VM0, 1)?;
    let output = moves_by_xl(pair, 1)?;
    ensure!(output.success(), "{}", text(&output));
    pair.heard(VM0, 2)?;
    ensure!(domains(pair.node(1))?.is_empty(), "a copy is left");
    watchers(pair, 1, 0)?;
    whole(pair, VM0, since)?;
    pair.node(2).ok_for("bascule destroy vm0", VERIFY_LIMIT)?;
    for node in pair.lab().nodes() {
        node.until("the volume is let go", "drbdadm secondary r0", VERIFY_LIMIT)?;
        node.ok("drbdadm net-options --allow-two-primaries=no r0")?;
    }
    nothing_left(pair, 2)?;
    pair.check_file_systems(VM0, 2)
}

/// The receiver becomes `xl migrate-receive` on the connection itself; with `-s ''`, xl takes its last word for the way there (xl_migrate.c).
fn moves_by_xl(pair: &Pair, from: u8) -> anyhow::Result<Output> {
    let to = pair.node(3 - from);
    to.ok(&format!(
        "setsid socat TCP-LISTEN:{XL_PORT},reuseaddr,accept-timeout=60 EXEC:'xl migrate-receive',nofork </dev/null >/run/xl-receive 2>&1 &"
    ))?;
    to.until("xl's receiver listens", &format!("ss -Hltn sport = :{XL_PORT} | grep -q ."), VERIFY_LIMIT)?;
    let way = format!("exec socat -b 65536 STDIO TCP:{}:{XL_PORT}", to.name());
    pair.node(from).run_for(&format!("xl migrate -s '' vm0 '{way}'"), MIGRATION_LIMIT)
}
