//! Domains that go to files and come back, by xl and by us; and their consoles.

use std::time::Duration;

use anyhow::{Context, ensure};
use bascule_lab::lan;
use bascule_lab::pair::{Pair, VM0, domains};

use crate::{VERIFY_LIMIT, on_the_pair, refused, text, whole};

/// Nothing of the domain is there but its file: no domain, and its volume Secondary on both nodes.
fn only_the_file(pair: &Pair, file: &str) -> anyhow::Result<()> {
    ensure!(domains(pair.node(1))?.is_empty(), "a domain is left");
    let roles = pair.roles(VM0, 1)?;
    ensure!(roles.iter().all(|roles| roles.here == "Secondary" && roles.peer == "Secondary"), "{roles:?}");
    let listed = pair.node(1).ok(&format!("ls {file}*"))?;
    ensure!(listed.trim() == file, "{listed}");
    Ok(())
}

/// It runs here, and counts on from where it stopped.
fn goes_on(pair: &Pair) -> anyhow::Result<()> {
    pair.heard_again(VM0, 1)?;
    pair.check(VM0, 1)
}

#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn a_domain_goes_through_files_of_xl_and_of_ours() {
    on_the_pair("saved", |pair| {
        let (node, since) = (pair.node(1), lan::monotonic_now());
        pair.create(VM0, 1)?;

        // By xl, then by us. Nobody can tell what has become of its disk meanwhile, and that is said.
        node.ok_for("xl save vm0 /run/by-xl", VERIFY_LIMIT)?;
        only_the_file(pair, "/run/by-xl")?;
        let restored = node.run_for("bascule restore /run/by-xl", VERIFY_LIMIT)?;
        refused(&restored, 0, &["vm0 is domain", "warning: since it was saved r0/0 may have been written"])?;
        goes_on(pair)?;
        let again = node.run("bascule restore /run/by-xl; rm /run/by-xl")?;
        refused(&again, 0, &["exists here", "bascule list"])?;

        // By us, then by xl. What is there already is not overwritten.
        refused(&node.run("touch /run/by-us; bascule save vm0 /run/by-us")?, 1, &["--force", "vm0 was not touched"])?;
        let saved = node.run_for("bascule save --force vm0 /run/by-us", VERIFY_LIMIT)?;
        refused(&saved, 0, &["vm0 is saved in /run/by-us", "bascule restore"])?;
        only_the_file(pair, "/run/by-us")?;
        node.ok_for("xl restore /run/by-us && rm /run/by-us", VERIFY_LIMIT)?;
        goes_on(pair)?;
        let listed = node.ok("bascule list vm0")?;
        ensure!(listed.contains("Primary/Secondary"), "{listed}");

        // Both by us: it is proven that nobody has written, so that nothing is to be said.
        node.ok_for("bascule save vm0 /run/by-us", VERIFY_LIMIT)?;
        only_the_file(pair, "/run/by-us")?;
        let restored = node.run_for("bascule restore /run/by-us && rm /run/by-us", VERIFY_LIMIT)?;
        ensure!(restored.success() && !text(&restored).contains("warning"), "{}", text(&restored));
        goes_on(pair)?;
        whole(pair, VM0, since)?;

        // It goes on after a checkpoint, and the file is worth nothing from then on.
        node.ok_for("bascule save --checkpoint vm0 /run/stale", VERIFY_LIMIT)?;
        goes_on(pair)?;
        node.ok_for("bascule destroy vm0", VERIFY_LIMIT)?;
        let stale = node.run_for("bascule restore /run/stale; code=$?; rm /run/stale; exit $code", VERIFY_LIMIT)?;
        refused(&stale, 1, &["r0/0 was written", "--force"])?;
        ensure!(domains(node)?.is_empty(), "it was restored");
        pair.check_file_systems(VM0, 1)
    });
}

/// Saves, and does something as soon as the domain is suspended; what the save said, and its exit code.
fn disturbed(pair: &Pair, disturb: &str) -> anyhow::Result<bascule_lab::Output> {
    // What an earlier one has said is not taken for this one's word.
    let save = ">/run/said; bascule save vm0 /run/file >>/run/said 2>&1 & save=$!";
    let suspended = "until [[ $(</run/said) == *'is suspended'* ]]; do kill -0 $save || break; done";
    pair.node(1).run_for(
        &format!("{save}; {suspended}; {disturb}; wait $save; code=$?; cat /run/said; exit $code"),
        VERIFY_LIMIT,
    )
}

#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn a_save_that_fails_leaves_the_domain_as_it_was() {
    on_the_pair("save-fails", |pair| {
        let (node, since) = (pair.node(1), lan::monotonic_now());
        pair.create(VM0, 1)?;
        let small = "mkdir -p /run/small; mount -t tmpfs -o size=8m none /run/small; bascule save vm0 /run/small/file; code=$?; \
                     ls -A /run/small; umount /run/small; exit $code";
        let output = node.run_for(small, VERIFY_LIMIT)?;
        refused(&output, 1, &["no space", "vm0 was not touched"])?;
        ensure!(!output.stdout.contains("file"), "{}", text(&output));
        pair.check(VM0, 1)?;

        // What writes it dies, or a person stops it, when the domain is suspended already.
        for (disturb, said) in
            [("pkill -KILL libxl-save-help", "libxl_domain_suspend"), ("kill -INT $save", "Cancelled")]
        {
            let output = disturbed(pair, disturb)?;
            refused(&output, 1, &[said, "vm0 runs on, and nothing is saved"])?;
            goes_on(pair)?;
            ensure!(!node.run("ls /run/file*")?.success(), "a file is left after {disturb}");
        }
        let modes = node.ok("xl dmesg -c >/run/before; xl debug-keys q; xl dmesg")?;
        ensure!(modes.contains("General information for domain"), "{modes}");
        ensure!(!modes.contains("log_dirty"), "{modes}");

        // While it is being saved, nothing else is done to it.
        let output =
            disturbed(pair, "kill -STOP $save; bascule migrate vm0 node2; bascule pause vm0; kill -CONT $save")?;
        ensure!(output.success(), "{}", text(&output));
        ensure!(text(&output).matches("is being saved to a file").count() == 2, "{}", text(&output));
        node.ok_for("bascule restore /run/file && rm /run/file", VERIFY_LIMIT)?;
        goes_on(pair)?;
        let output = pair.migrate(VM0, 1, "")?;
        ensure!(output.success(), "{}", text(&output));
        pair.check(VM0, 2)?;
        whole(pair, VM0, since).map(drop)
    });
}

/// How long it may take until what a killed process has left is seen to: the daemon looks once a second.
const SEEN_TO_LIMIT: Duration = Duration::from_secs(60);

fn nothing_is_left(pair: &Pair) -> anyhow::Result<()> {
    let nothing = "records=(/run/bascule/migration-*.json); [ ! -e \"${records[0]}\" ]";
    pair.node(1).until("what was left is seen to", nothing, SEEN_TO_LIMIT)
}

/// The daemon has said what it did about what a killed process had left, and nothing of that is there any more.
fn seen_to(pair: &Pair, done: &str) -> anyhow::Result<()> {
    let node = pair.node(1);
    nothing_is_left(pair)?;
    let said = format!("grep -q 'its process was killed: {done}' /var/log/bascule.log");
    node.until("the daemon has said what it did", &said, SEEN_TO_LIMIT)?;
    ensure!(!node.run("pgrep libxl-save-help")?.success(), "its helper is left");
    Ok(())
}

#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn what_a_save_leaves_that_is_killed_is_seen_to() {
    on_the_pair("save-killed", |pair| {
        let (node, since) = (pair.node(1), lan::monotonic_now());
        pair.create(VM0, 1)?;

        // In the middle: without its file the domain goes on.
        let killed = disturbed(pair, "kill -KILL $save")?;
        ensure!(!killed.success(), "it was not killed: {}", text(&killed));
        seen_to(pair, "it goes on where it stopped")?;
        goes_on(pair)?;
        ensure!(!node.run("ls /run/file*")?.success(), "a file is left");

        // Without a daemon it is shown, and done when a person says so.
        pair.stop_serving(1)?;
        disturbed(pair, "kill -KILL $save")?;
        let listed = node.ok("bascule list vm0")?;
        ensure!(listed.contains("which was killed while it saved it to /run/file"), "{listed}");
        let looked = node.run("bascule recover --dry-run")?;
        refused(&looked, 0, &["vm0", "suspended", "not complete", "it goes on where it stopped"])?;
        node.ok_for("bascule recover", VERIFY_LIMIT)?;
        goes_on(pair)?;
        ensure!(!node.run("ls /run/file*")?.success(), "a file is left");
        pair.serve(1)?;

        // When the file is complete: it is the domain from then on.
        let complete = "until [ -e /run/file ]; do kill -0 $save || break; done; kill -KILL $save";
        disturbed(pair, complete)?;
        nothing_is_left(pair)?;
        pair.wait("its volume is Secondary", || Ok(pair.roles(VM0, 1)?.iter().all(|roles| roles.here == "Secondary")))?;
        only_the_file(pair, "/run/file")?;
        node.ok_for("bascule restore /run/file && rm /run/file", VERIFY_LIMIT)?;
        goes_on(pair)?;
        whole(pair, VM0, since).map(drop)
    });
}

#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn what_a_restore_leaves_that_is_killed_before_the_domain_ran_is_nothing() {
    on_the_pair("restore-killed", |pair| {
        let (node, since) = (pair.node(1), lan::monotonic_now());
        pair.create(VM0, 1)?;
        node.ok_for("bascule save vm0 /run/file", VERIFY_LIMIT)?;
        let numbered =
            "until grep -qs '\"domid\":[0-9]' /run/bascule/migration-*.json; do kill -0 $restore || break; done";
        let killed = node.run_for(
            &format!(
                "bascule restore /run/file >/run/said 2>&1 & restore=$!; {numbered}; kill -KILL $restore; wait $restore"
            ),
            VERIFY_LIMIT,
        )?;
        ensure!(!killed.success(), "it was not killed: {}", text(&killed));
        seen_to(pair, "it is destroyed")?;
        pair.wait("its volume is Secondary", || Ok(pair.roles(VM0, 1)?.iter().all(|roles| roles.here == "Secondary")))?;
        only_the_file(pair, "/run/file")?;

        // The file is as it was.
        let restored = node.run_for("bascule restore /run/file && rm /run/file", VERIFY_LIMIT)?;
        ensure!(restored.success(), "{}", text(&restored));
        goes_on(pair)?;
        whole(pair, VM0, since).map(drop)
    });
}

/// What libxl runs as a boot loader: it asks, and passes on what it was given. libxl removes the files that it names.
const LOADER: &str = r#"#!/bin/sh
for word; do
    case $word in
    --output=*) output=${word#*=} ;;
    --kernel=*) ln -sf "${word#*=}" /run/loader-kernel ;;
    --ramdisk=*) ln -sf "${word#*=}" /run/loader-ramdisk ;;
    --args=*) args=${word#*=} ;;
    esac
done
echo 'which kernel?'
read -r answer
echo "it is the $answer one"
printf 'kernel /run/loader-kernel\0ramdisk /run/loader-ramdisk\0args %s\0' "$args" >"$output"
"#;

#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn a_boot_loader_is_seen_and_answered_before_there_is_a_domain() {
    on_the_pair("boot-loader", |pair| {
        let node = pair.node(1);
        node.write_file("/run/loader", 0o755, LOADER.as_bytes())?;
        // libxl gives it the disk's own device.
        let edit = "s#^disk = .*#disk = [ \"phy:/dev/drbd0,xvda,w\" ]\\nbootloader = \"/run/loader\"#";
        node.ok(&format!("drbdadm primary r0 && sed '{edit}' {} >/run/loaded.cfg && >/run/console.log", VM0.file()))?;
        // The input stays open until the guest is up.
        let up = "for i in {1..150}; do [[ $(</run/console.log) == *'vm0 counts from'* ]] && break; read -rt 1 <> <(:); done";
        let create = "bascule create -c /run/loaded.cfg >>/run/console.log 2>&1";
        let output =
            node.run_for(&format!("{{ echo second; {up}; }} | {create}; echo $?; cat /run/console.log"), VERIFY_LIMIT)?;
        let places: Vec<_> = ["which kernel?", "it is the second one", "vm0 is domain", "vm0 counts from"]
            .iter()
            .map(|said| output.stdout.find(said))
            .collect();
        ensure!(output.stdout.starts_with("0\n") && places.is_sorted() && places[0].is_some(), "{}", text(&output));
        ensure!(!node.run("ls /var/lock/xenconsole.*")?.success(), "its lock is left");
        node.ok_for("bascule destroy vm0", VERIFY_LIMIT)?;
        node.until("the volume is let go", "drbdadm secondary r0", VERIFY_LIMIT)?;
        pair.check_file_systems(VM0, 1)
    });
}

#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn a_console_shows_all_from_the_first_line_and_takes_what_is_typed() {
    on_the_pair("console", |pair| {
        let node = pair.node(1);
        node.ok(&format!("sed 's/ quiet / /' {} >/run/loud.cfg", VM0.file()))?;
        let shown = "exec bascule create -c /run/loud.cfg </dev/null >/run/console.log 2>&1";
        let console = node.spawn(shown)?;
        let up = "[[ $(</run/console.log) == *'vm0 counts from'* ]]";
        node.until("the guest is up", up, VERIFY_LIMIT).context("nothing is on the console")?;
        let log = node.ok("cat /run/console.log")?;
        ensure!(log.contains("vm0 is domain") && log.contains("Linux version"), "{log}");

        // It is one person's at a time, and he is put off by a signal.
        refused(&node.run("bascule console vm0 </dev/null")?, 1, &["attached already"])?;
        console.signal("TERM")?;
        ensure!(!console.wait(VERIFY_LIMIT)?.success(), "a console that was ended ended by itself");

        // The guest's terminal says again what it hears.
        let typed = node.run("{ echo hello guest; read -rt 5 <> <(:); } | bascule console vm0")?;
        refused(&typed, 0, &["hello guest"])?;

        // It ends with the domain.
        let console = node.spawn("exec bascule console vm0 </dev/null")?;
        node.until("it is attached", "[ -e /var/lock/xenconsole.$(xl domid vm0) ]", VERIFY_LIMIT)?;
        node.ok_for("bascule destroy vm0", VERIFY_LIMIT)?;
        let output = console.wait(VERIFY_LIMIT)?;
        ensure!(output.success(), "{}", text(&output));
        ensure!(!node.run("ls /var/lock/xenconsole.*")?.success(), "its lock is left");
        Ok(())
    });
}
