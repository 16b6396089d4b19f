//! Real domains on real DRBD between two real Xen hosts: the tests that run in the lab, by `cargo xtask test`.
//!
//! Each begins from a clean pair, and after each action exactly one copy runs, on the node where the roles say so.

#[path = "domains/check.rs"]
mod check;
#[path = "domains/findings.rs"]
mod findings;
#[path = "domains/kinds.rs"]
mod kinds;
#[path = "domains/life.rs"]
mod life;
#[path = "domains/oracle.rs"]
mod oracle;
#[path = "domains/pairs.rs"]
mod pairs;
#[path = "domains/preflight.rs"]
mod preflight;
#[path = "domains/saved.rs"]
mod saved;
#[path = "domains/unfit.rs"]
mod unfit;

#[path = "relocation/authority.rs"]
mod authority;
#[path = "relocation/captured.rs"]
mod captured;
#[path = "relocation/fresh.rs"]
mod fresh;
#[path = "relocation/strangers.rs"]
mod strangers;

use std::time::Duration;

use anyhow::{Context, ensure};
use bascule::preflight::Code;
use bascule_lab::pair::{Guest, Pair, VM0, VM1};
use bascule_lab::witness::{Story, Window};
use bascule_lab::{Lab, Link, Order, Output, lan};
use findings::{Awaited, Found};

/// How fast the guest dirties its memory under load, in KiB/s.
const DIRTY_KIB_S: u64 = 512;
/// How long a guest may take to look through its whole memory and disks.
const VERIFY_LIMIT: Duration = Duration::from_secs(240);
/// How often a domain moves to and fro, an even number.
const ROUNDS: u8 = 4;

/// Runs a test on a clean pair that migrates in clear; keeps the nodes' logs if it fails.
fn on_the_pair(name: &str, test: impl FnOnce(&Pair) -> anyhow::Result<()>) {
    on(name, Pair::reset_in_clear, test);
}

/// The same, with connections as they are by default: for what is about them.
fn on_the_encrypted_pair(name: &str, test: impl FnOnce(&Pair) -> anyhow::Result<()>) {
    on(name, Pair::reset, test);
}

fn on(name: &str, reset: impl FnOnce(&Pair) -> anyhow::Result<()>, test: impl FnOnce(&Pair) -> anyhow::Result<()>) {
    let pair = Pair::new(Lab::attach().expect("the lab runs: cargo xtask lab up"));
    let done = reset(&pair).context("The pair could not be made ready").and_then(|()| test(&pair));
    if let Err(error) = done {
        let logs = pair.lab().collect_logs(name);
        panic!("{error:#}\nlogs: {logs:?}");
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", output.stdout, output.stderr)
}

/// The command was refused with this exit code and a message that has all of these words.
fn refused(output: &Output, code: i32, words: &[&str]) -> anyhow::Result<()> {
    let text = text(output);
    ensure!(output.status == code, "exit {} instead of {code}: {text}", output.status);
    for word in words {
        ensure!(text.contains(word), "no {word:?} in: {text}");
    }
    Ok(())
}

/// The guest finds its memory and its disks as it left them, and nobody saw two of it.
fn whole(pair: &Pair, guest: Guest, since: Duration) -> anyhow::Result<Story> {
    let answer = pair.lab().witness().ask(guest.name, Order::Verify, VERIFY_LIMIT)?;
    let story = pair.lab().witness().story(guest.name, Window::since(since));
    let errors = story.errors();
    ensure!(errors.memory == 0 && errors.io == 0 && errors.holes == 0, "{errors:?} ({})", answer.text);
    ensure!(story.lost_writes().is_empty(), "{:?}", story.lost_writes());
    ensure!(story.doubled().is_none(), "{:?}", story.doubled());
    Ok(story)
}

/// Migrations to and fro under load; more of them are `cargo xtask test --soak N`.
fn migrations(pair: &Pair, options: &str) -> anyhow::Result<()> {
    let since = lan::monotonic_now();
    pair.create(VM0, 1)?;
    pair.check(VM0, 1)?;
    pair.lab().witness().ask(VM0.name, Order::Dirty(DIRTY_KIB_S), VERIFY_LIMIT)?;
    let watch = pair.watch_roles()?;
    for round in 0..ROUNDS {
        let from = 1 + round % 2;
        let output = pair.migrate(VM0, from, options)?;
        ensure!(output.success(), "migration {round}: {}", text(&output));
        pair.check(VM0, 3 - from).with_context(|| format!("after migration {round}: {}", text(&output)))?;
        pair.heard(VM0, 3 - from)?;
    }
    let seen = watch.end(VM0.resource)?;
    ensure!(seen.promotions >= usize::from(ROUNDS), "{seen:?}");
    match options {
        "--handover dual" => ensure!(seen.two_primaries.len() >= usize::from(ROUNDS), "{seen:?}"),
        _ => ensure!(seen.two_primaries.is_empty(), "{seen:?}"),
    }
    let story = whole(pair, VM0, since)?;
    let there_and_back: Vec<u8> = (0..=ROUNDS).map(|round| 1 + round % 2).collect();
    ensure!(story.nodes() == there_and_back, "{:?}", story.nodes());
    pair.shut_down(VM0, 1)?;
    pair.check_file_systems(VM0, 1)
}

#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn migrations_with_never_two_primaries() {
    on_the_pair("to-and-fro-single", |pair| migrations(pair, ""));
}

#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn migrations_with_the_dual_primary_handover() {
    on_the_pair("to-and-fro-dual", |pair| migrations(pair, "--handover dual"));
}

#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn both_volumes_of_a_resource_move_together() {
    on_the_pair("two-volumes", |pair| {
        let since = lan::monotonic_now();
        pair.create(VM1, 1)?;
        let watch = pair.watch_roles()?;
        for from in [1, 2] {
            let output = pair.migrate(VM1, from, "--live")?;
            ensure!(output.success(), "{}", text(&output));
            pair.check(VM1, 3 - from)?;
            pair.heard(VM1, 3 - from)?;
        }
        let seen = watch.end(VM1.resource)?;
        ensure!(seen.two_primaries.is_empty(), "{seen:?}");
        whole(pair, VM1, since)?;
        pair.shut_down(VM1, 1)?;
        pair.check_file_systems(VM1, 2)
    });
}

#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn a_second_start_on_the_other_node_is_refused_to_bascule_and_to_xl() {
    on_the_pair("second-start", |pair| {
        pair.create(VM0, 1)?;
        let by_us = pair.node(2).run_for(&format!("bascule create {}", VM0.file()), VERIFY_LIMIT)?;
        refused(&by_us, 1, &["10.98.0.1", "Primary"])?;
        let by_xl = pair.node(2).run_for(&format!("xl create {}", VM0.file()), VERIFY_LIMIT)?;
        ensure!(!by_xl.success(), "{}", text(&by_xl));
        pair.check(VM0, 1)?;

        // Also where two Primaries are allowed for good.
        let allow = "drbdsetup net-options ipv4:10.98.0.1:7788 ipv4:10.98.0.2:7788 --allow-two-primaries";
        pair.node(1).ok(&format!("{allow}=yes"))?;
        let by_us = pair.node(2).run_for(&format!("bascule create {}", VM0.file()), VERIFY_LIMIT)?;
        refused(&by_us, 1, &["10.98.0.1", "Primary"])?;
        pair.node(1).ok(&format!("{allow}=no"))?;

        // And on the same node: another domain on the same volume.
        let twin = format!("sed s/vm0/twin/ {} >/run/twin.cfg; bascule create /run/twin.cfg", VM0.file());
        refused(&pair.node(1).run_for(&twin, VERIFY_LIMIT)?, 1, &["r0/0", "attached"])?;
        pair.check(VM0, 1)
    });
}

#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn a_domain_that_xl_started_moves_and_xl_sees_it() {
    on_the_pair("by-xl", |pair| {
        pair.node(1).ok_for(&format!("xl create {}", VM0.file()), VERIFY_LIMIT)?;
        pair.heard(VM0, 1)?;
        let output = pair.migrate(VM0, 1, "")?;
        ensure!(output.success(), "{}", text(&output));
        pair.check(VM0, 2)?;
        pair.heard(VM0, 2)
    });
}

/// What a migration finds that is refused.
fn found(pair: &Pair) -> anyhow::Result<Found> {
    Found::of(&pair.migrate(VM0, 1, "--json")?)
}

const NAME_TAKEN: &[Awaited] = &[(Code::NameTaken, 2, &["vm0", "exists here", "bascule destroy "])];
const NO_ROOM: &[Awaited] = &[(Code::Memory, 2, &["MiB of memory are free", "make dom0 smaller", "xl mem-set 0 "])];
const RESYNC: &[Awaited] = &[
    (Code::NotUpToDate, 1, &["r0/0", "Inconsistent", "Wait for the resync to end: bascule status"]),
    (Code::NotUpToDate, 2, &["r0/0", "Inconsistent", "Wait for the resync to end: bascule status"]),
    (Code::Resync, 1, &["r0/0", "SyncSource", "bascule status"]),
    (Code::Resync, 2, &["r0/0", "SyncTarget", "bascule status"]),
];
const NOT_ACCEPTED: &[Awaited] =
    &[(Code::Configuration, 2, &["b_info.kernel", "/var/lib/bascule-lab/", "Start the domain without it"])];

/// Each obstacle in turn: refused with its reason, and the guest runs on.
#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn what_stands_against_a_migration_is_said_and_nothing_is_changed() {
    on_the_pair("refusals", |pair| {
        pair.create(VM0, 1)?;

        // The daemon is down.
        pair.stop_serving(2)?;
        refused(&pair.migrate(VM0, 1, "")?, 1, &["8002", "refused", "vm0 was not touched"])?;
        pair.serve(2)?;
        pair.check(VM0, 1)?;

        // The name is taken.
        pair.node(2).ok_for(
            "sed 's/^disk.*/disk = []/' /etc/xen/vm0.cfg >/run/taken.cfg; bascule create -p /run/taken.cfg",
            VERIFY_LIMIT,
        )?;
        found(pair)?.all(NAME_TAKEN)?;
        pair.node(2).ok_for("bascule destroy vm0", VERIFY_LIMIT)?;

        // There is not enough memory.
        pair.node(2).ok_for("m=$(($(xl info free_memory) - 80)); sed -e s/vm0/fat/ -e 's/^disk.*/disk = []/' -e \"s/^memory.*/memory = $m/\" /etc/xen/vm0.cfg >/run/fat.cfg; bascule create -p /run/fat.cfg", VERIFY_LIMIT)?;
        found(pair)?.all(NO_ROOM)?;
        pair.node(2).ok_for("bascule destroy fat", VERIFY_LIMIT)?;
        pair.check(VM0, 1)?;

        // The resource is not connected; then connected, but not up to date.
        pair.node(2).ok("drbdadm disconnect r0")?;
        refused(&pair.migrate(VM0, 1, "")?, 4, &["not-connected", "r0"])?;
        pair.node(2).ok("drbdadm invalidate r0; drbdadm disk-options --c-max-rate=512k --c-min-rate=64k --c-fill-target=8 --resync-rate=100k r0; drbdadm connect r0")?;
        pair.node(2).until("it is resynchronised", "[[ $(</proc/drbd) == *' 0: cs:SyncTarget'* ]]", VERIFY_LIMIT)?;
        let resync = found(pair)?;
        resync.all(RESYNC)?;
        // Its data generation is another one until then: that is no finding.
        ensure!(!resync.has(Code::GenerationDiffers), "{resync:?}");
        pair.node(2).ok("drbdadm adjust r0")?;
        pair.lab().wait_until_replicated(VERIFY_LIMIT)?;
        pair.check(VM0, 1)?;

        // Nothing of all that stays in the way.
        let output = pair.migrate(VM0, 1, "")?;
        ensure!(output.success(), "{}", text(&output));
        pair.check(VM0, 2)
    });
}

/// The destination's configuration decides what a domain from elsewhere may name, and SIGHUP takes it over.
#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn what_a_domain_from_elsewhere_may_name_is_in_the_configuration() {
    on_the_encrypted_pair("configuration", |pair| {
        pair.create(VM0, 1)?;
        pair.configure_whole(2, "[guests]\nkernels = ['/boot']", "configuration taken over")?;
        found(pair)?.all(NOT_ACCEPTED)?;

        // A wrong file changes nothing.
        pair.configure_whole(2, "[guests]\nkernel = ['/var/lib']", "did you mean kernels")?;
        refused(&pair.migrate(VM0, 1, "--dry-run")?, 4, &["b_info.kernel"])?;
        pair.configure_whole(2, "[guests]\nkernels = ['/var/lib']", "configuration taken over")?;
        let output = pair.migrate(VM0, 1, "")?;
        ensure!(output.success(), "{}", text(&output));
        pair.check(VM0, 2)
    });
}

#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn a_relocation_link_that_is_cut_leaves_the_domain_at_the_source() {
    on_the_pair("cut-link", |pair| {
        let since = lan::monotonic_now();
        pair.create(VM0, 1)?;
        let migration = pair.node(1).spawn("bascule migrate vm0 node2")?;
        wait_for_stream(pair)?;
        pair.lab().cut(Link::Relocation)?;
        let output = migration.wait(VERIFY_LIMIT)?;
        pair.lab().restore(Link::Relocation)?;
        refused(&output, 1, &["vm0 runs on here"])?;
        settled(pair, 1)?;
        whole(pair, VM0, since)?;

        // It can be moved right after it.
        let output = pair.migrate(VM0, 1, "")?;
        ensure!(output.success(), "{}", text(&output));
        pair.check(VM0, 2)
    });
}

#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn a_migration_that_is_interrupted_leaves_the_domain_at_the_source() {
    on_the_pair("interrupt", |pair| {
        pair.create(VM0, 1)?;
        let migration = pair.node(1).spawn("exec bascule migrate vm0 node2")?;
        wait_for_stream(pair)?;
        migration.signal("INT")?;
        refused(&migration.wait(VERIFY_LIMIT)?, 1, &["Cancelled", "vm0 runs on here"])?;
        settled(pair, 1)
    });
}

#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn a_migration_is_cancelled_from_another_shell() {
    on_the_pair("cancel", |pair| {
        pair.create(VM0, 1)?;
        refused(&pair.node(1).run("bascule cancel vm0")?, 1, &["No migration of vm0"])?;
        let migration = pair.node(1).spawn("exec bascule migrate vm0 node2")?;
        wait_for_stream(pair)?;
        let cancelled = pair.node(1).ok_for("bascule cancel vm0", VERIFY_LIMIT)?;
        ensure!(cancelled.contains("rolled back"), "{cancelled}");
        refused(&migration.wait(VERIFY_LIMIT)?, 1, &["Cancelled", "vm0 runs on here"])?;
        settled(pair, 1)
    });
}

/// The destination's host dies behind GO: only a person can know that it will not run the domain.
#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn the_source_goes_on_when_a_person_says_that_the_destination_is_dead() {
    on_the_pair("destination-dead", |pair| {
        let since = lan::monotonic_now();
        pair.create(VM0, 1)?;
        let migration =
            pair.node(1).spawn("exec bascule migrate --timeout resolve=5 --fail-at s-journaled-go:hang vm0 node2")?;
        reached(pair, 1, "s-journaled-go")?;
        pair.node(2).power_off()?;
        go_on(pair, 1, "s-journaled-go")?;
        refused(&migration.wait(VERIFY_LIMIT)?, 3, &["stays suspended", "recover --peer-is-dead"])?;
        let said = pair.node(1).ok("bascule recover --dry-run; bascule list; bascule status r0")?;
        ensure!(said.contains("it stays suspended") && said.matches("in migration").count() == 2, "{said}");

        noticed(pair, 1)?;
        let id = pair.node(1).ok("ls /var/lib/bascule/*.journal")?;
        let id = id.trim().trim_start_matches("/var/lib/bascule/").trim_end_matches(".journal");
        pair.node(1).run_for(&format!("bascule recover --peer-is-dead {id}"), VERIFY_LIMIT)?;
        pair.heard_again(VM0, 1)?;
        pair.node(2).power_on()?;
        pair.serve(2)?;
        finished(pair)?;
        pair.lab().wait_until_replicated(VERIFY_LIMIT)?;
        pair.check(VM0, 1)?;
        whole(pair, VM0, since).map(drop)
    });
}

/// The source's host dies before GO: the destination's paused copy is the only one, and a person says so.
#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn the_destination_starts_its_copy_when_a_person_says_that_the_source_is_dead() {
    on_the_pair("source-dead", |pair| {
        let since = lan::monotonic_now();
        pair.create(VM0, 1)?;
        let _migration = pair.node(1).spawn("exec bascule migrate --fail-at s-verified:hang vm0 node2")?;
        reached(pair, 1, "s-verified")?;
        pair.node(1).power_off()?;
        let asks = "grep -q held /var/lib/bascule/*.journal";
        pair.node(2).until("the destination asks", asks, VERIFY_LIMIT)?;
        noticed(pair, 2)?;
        let list = pair.node(2).ok("xl list")?;
        ensure!(list.contains("vm0--incoming"), "{list}");
        let id = pair.node(2).ok("ls /var/lib/bascule/*.journal")?;
        let id = id.trim().trim_start_matches("/var/lib/bascule/").trim_end_matches(".journal");
        pair.node(2).run_for(&format!("bascule recover --peer-is-dead {id}"), VERIFY_LIMIT)?;
        pair.heard_again(VM0, 2)?;
        pair.node(1).power_on()?;
        pair.serve(1)?;
        finished(pair)?;
        pair.lab().wait_until_replicated(VERIFY_LIMIT)?;
        pair.check(VM0, 2)?;
        whole(pair, VM0, since).map(drop)
    });
}

/// A person's word is not taken where the other host can be seen to live: believed, the domain would run twice.
#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn a_host_that_lives_is_not_taken_for_dead() {
    on_the_pair("not-dead", |pair| {
        pair.create(VM0, 1)?;
        let migration = pair.node(1).spawn("exec bascule migrate --fail-at s-sent-go:hang vm0 node2")?;
        reached(pair, 1, "s-sent-go")?;
        pair.heard(VM0, 2)?;
        let id = pair.node(1).ok("ls /var/lib/bascule/*.journal")?;
        let id = id.trim().trim_start_matches("/var/lib/bascule/").trim_end_matches(".journal");
        let dead = format!("bascule recover --peer-is-dead {id}");
        refused(&pair.node(1).run_for(&dead, VERIFY_LIMIT)?, 1, &["node2 answers", "not dead"])?;
        pair.lab().cut(Link::Relocation)?;
        let by_drbd = pair.node(1).run_for(&dead, VERIFY_LIMIT);
        pair.lab().restore(Link::Relocation)?;
        refused(&by_drbd?, 1, &["DRBD is connected", "not dead"])?;
        go_on(pair, 1, "s-sent-go")?;
        ensure!(migration.wait(VERIFY_LIMIT)?.success(), "the migration did not end well");
        finished(pair)?;
        pair.check(VM0, 2)
    });
}

/// The migration stands at a step of the node.
fn reached(pair: &Pair, nr: u8, step: &str) -> anyhow::Result<()> {
    pair.node(nr).until("the step is reached", &format!("[ -e /run/bascule/fault-{step} ]"), VERIFY_LIMIT)
}

fn go_on(pair: &Pair, nr: u8, step: &str) -> anyhow::Result<()> {
    pair.node(nr).ok(&format!("rm /run/bascule/fault-{step}")).map(drop)
}

/// No journal is open on either node.
fn finished(pair: &Pair) -> anyhow::Result<()> {
    let none = "shopt -s nullglob; open=(/var/lib/bascule/*.journal); (( ${#open[@]} == 0 ))";
    pair.lab().nodes().iter().try_for_each(|node| node.until("no journal is open", none, VERIFY_LIMIT))
}

/// The node's DRBD knows that the other one cannot be reached.
fn noticed(pair: &Pair, nr: u8) -> anyhow::Result<()> {
    pair.node(nr).until("DRBD has noticed", "[[ $(</proc/drbd) != *' 0: cs:Connected'* ]]", VERIFY_LIMIT)
}

/// A kernel's closed socket that waits for a dead connection's last word holds the guest's pages: without the daemon's broom neither
/// this domain's disk nor any other could be detached or attached on the host any more.
#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn a_replication_link_that_is_lost_with_data_on_its_way_does_not_hold_the_disk() {
    on_the_pair("lost-link", |pair| {
        pair.create(VM0, 1)?;
        pair.lab().cut(Link::Replication)?;
        let alone = "[[ $(</proc/drbd) == *' 0: cs:WFConnection'* ]]";
        pair.node(1).until("DRBD has noticed", alone, VERIFY_LIMIT)?;
        pair.heard_again(VM0, 1)?;
        pair.node(1).ok_for("bascule destroy vm0", VERIFY_LIMIT)?;
        pair.lab().restore(Link::Replication)?;
        pair.lab().wait_until_replicated(VERIFY_LIMIT)?;
        pair.create(VM0, 1)?;
        pair.check(VM0, 1)
    });
}

/// What is executed during a migration is libxl's doing: its save helper, and the hotplug programs that it runs.
#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn our_code_executes_nothing() {
    on_the_pair("no-exec", |pair| {
        pair.create(VM0, 1)?;
        let traced = "strace -f -qq -e trace=execve -o /run/execs bascule migrate vm0 node2";
        let output = pair.node(1).run_for(traced, VERIFY_LIMIT)?;
        ensure!(output.success(), "{}", text(&output));
        let trace = pair.node(1).ok("cat /run/execs")?;
        let executed: Vec<&str> =
            trace.lines().filter_map(|line| line.split("execve(\"").nth(1)?.split('"').next()).collect();
        let is_known = |path: &&str| {
            let libxls = ["libxl-save-helper", "block-drbd", "vif-bridge"];
            path.ends_with("/bascule") || libxls.iter().any(|program| path.ends_with(program))
        };
        ensure!(executed.iter().any(|path| path.ends_with("libxl-save-helper")), "{trace}");
        ensure!(executed.iter().all(is_known), "{executed:?}");
        ensure!(executed.iter().filter(|path| path.ends_with("/bascule")).count() == 1, "{executed:?}");
        pair.check(VM0, 2)
    });
}

/// The destination's copy exists: the stream is on its way.
fn wait_for_stream(pair: &Pair) -> anyhow::Result<()> {
    let copy = "xl list | grep -q '^vm0--incoming '";
    pair.node(2).until("the stream is on its way", copy, VERIFY_LIMIT)
}

/// The destination may take a moment to clean up.
fn settled(pair: &Pair, runs_on: u8) -> anyhow::Result<()> {
    pair.wait("the other node is clean", || Ok(bascule_lab::pair::domains(pair.node(3 - runs_on))?.is_empty()))?;
    pair.check(VM0, runs_on)?;
    pair.heard(VM0, runs_on)
}
