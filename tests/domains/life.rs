//! A domain's life beside its migrations: what reboots comes back, on the host where it is, and nobody else touches it.

use std::time::Duration;

use anyhow::{Context, ensure};
use bascule_lab::pair::{Guest, Pair, VM0, domains};
use bascule_lab::{Order, lan};

use crate::{VERIFY_LIMIT, finished, go_on, on_the_pair, reached, refused, text, whole};

/// Does something that makes the guest reboot, and waits until it is heard again, from that node.
pub(crate) fn comes_back(
    pair: &Pair,
    guest: Guest,
    nr: u8,
    reboot: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let before = pair.lab().witness().latest(guest.name).context("nothing was heard of it")?.report.boot;
    reboot()?;
    let heard = pair.lab().witness().wait_for(guest.name, VERIFY_LIMIT, |sighting| sighting.report.boot != before)?;
    ensure!(heard.node == nr, "{} came back on node{}", guest.name, heard.node);
    pair.check(guest, nr)
}

/// How many processes of a name a node has.
pub(crate) fn processes(pair: &Pair, nr: u8, pattern: &str) -> anyhow::Result<usize> {
    Ok(pair.node(nr).run(&format!("pgrep {pattern}"))?.stdout.lines().count())
}

/// The node has as many watchers as that. The daemon looks once a second.
pub(crate) fn watchers(pair: &Pair, nr: u8, count: usize) -> anyhow::Result<()> {
    pair.wait("the watchers", || Ok(processes(pair, nr, "-f '^bascule .* watch '")? == count))
        .with_context(|| format!("not {count} on node{nr}"))
}

#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn a_guest_that_reboots_comes_back_where_it_is_and_one_that_powers_off_is_gone() {
    on_the_pair("life", |pair| {
        let since = lan::monotonic_now();
        pair.create(VM0, 1)?;
        watchers(pair, 1, 1)?;

        // While a migration has it in hand it stays as it ended, and what would break that is refused; then it comes back.
        let migration = pair.node(1).spawn("exec bascule migrate --fail-at s-stream:hang vm0 node2")?;
        reached(pair, 1, "s-stream")?;
        for command in ["pause vm0", "unpause vm0", "reboot vm0", "rename vm0 vm2"] {
            refused(&pair.node(1).run(&format!("bascule {command}"))?, 1, &["vm0", "migration"])?;
        }
        comes_back(pair, VM0, 1, || {
            pair.node(1).ok("xl reboot vm0")?;
            let ended = || Ok(domains(pair.node(1))?.iter().any(|(name, state)| name == "vm0" && state.contains('s')));
            pair.wait("it has shut down", ended)?;
            go_on(pair, 1, "s-stream")?;
            ensure!(!migration.wait(VERIFY_LIMIT)?.success(), "a domain that had shut down was migrated");
            finished(pair)
        })?;

        // Where it has moved to, it comes back there. Its watcher lives on without the daemon, and the next daemon starts no second.
        let output = pair.migrate(VM0, 1, "")?;
        ensure!(output.success(), "{}", text(&output));
        watchers(pair, 2, 1)?;
        watchers(pair, 1, 0)?;
        pair.stop_serving(2)?;
        pair.serve(2)?;
        comes_back(pair, VM0, 2, || pair.node(2).ok("bascule reboot vm0").map(drop))?;
        watchers(pair, 2, 1)?;
        whole(pair, VM0, since)?;

        // Off is off.
        pair.lab().witness().command(VM0.name, Order::Quit)?;
        pair.wait("nothing is left of it", || Ok(domains(pair.node(2))?.is_empty()))?;
        pair.wait("its volume is Secondary", || Ok(pair.roles(VM0, 2)?.iter().all(|roles| roles.here == "Secondary")))?;
        watchers(pair, 2, 0)?;
        pair.check_file_systems(VM0, 2)
    });
}

/// xl's own process ends when its domain suspends. From then on the domain is ours, also where the migration was taken back.
#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn a_domain_of_xls_has_somebody_who_watches_it_at_every_moment() {
    on_the_pair("life-xl", |pair| {
        let since = lan::monotonic_now();
        pair.node(1).ok_for(&format!("xl create {}", VM0.file()), VERIFY_LIMIT)?;
        pair.heard(VM0, 1)?;
        ensure!(processes(pair, 1, "-x xl")? == 1, "xl has left no process behind");
        watchers(pair, 1, 0)?;
        let output = pair.migrate(VM0, 1, "--fail-at s-released:error")?;
        refused(&output, 1, &["vm0 runs on here"])?;
        pair.wait("xl's process has ended", || Ok(processes(pair, 1, "-x xl")? == 0))?;
        watchers(pair, 1, 1)?;
        comes_back(pair, VM0, 1, || pair.node(1).ok("bascule reboot vm0").map(drop))?;

        let output = pair.migrate(VM0, 1, "")?;
        ensure!(output.success(), "{}", text(&output));
        comes_back(pair, VM0, 2, || pair.node(2).ok("bascule reboot vm0").map(drop))?;
        let config = pair.node(2).ok("bascule config domain vm0")?;
        ensure!(config.contains("\"name\": \"vm0\"") && config.contains("block-drbd"), "{config}");
        whole(pair, VM0, since).map(drop)
    });
}

/// What cannot be watched is said, with what to type.
#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn without_a_daemon_it_is_said_that_nobody_watches() {
    on_the_pair("life-no-daemon", |pair| {
        pair.stop_serving(1)?;
        let output = pair.node(1).run_for(&format!("bascule create -p {}", VM0.file()), Duration::from_secs(120))?;
        refused(&output, 0, &["Nobody will start it anew", "bascule serve"])?;
        pair.node(1).ok("bascule rename vm0 web")?;
        refused(&pair.node(1).run("bascule pause vm0")?, 1, &["vm0"])?;
        pair.serve(1)?;
        watchers(pair, 1, 1)?;
        pair.node(1).ok_for("bascule destroy web", VERIFY_LIMIT)?;
        watchers(pair, 1, 0)
    });
}
