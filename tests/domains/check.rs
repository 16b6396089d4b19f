//! `bascule check` on real hosts: nothing to say of a healthy pair but what the lab deserves, and each fault that is made has its code, its
//! node, and what to type.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use bascule_lab::Output;
use bascule_lab::pair::{Pair, VM0};
use serde_json::Value;

use crate::{VERIFY_LIMIT, on_the_pair, refused, text};

/// What the lab really has: nobody keeps its clocks right.
const DESERVED: [&str; 1] = ["clock-unsynchronised"];

/// A finding that is awaited: its code, and what its remedy names.
type Awaited = (&'static str, &'static str);

/// All findings of a check's JSON, those of the firewall aside: they have a form of their own.
fn findings(output: &Output) -> anyhow::Result<Vec<Value>> {
    let json: Value = serde_json::from_str(&output.stdout).with_context(|| text(output))?;
    let parts = [&json["findings"], &json["host"]["findings"], &json["drbd"]["findings"]];
    Ok(parts.into_iter().filter_map(Value::as_array).flatten().cloned().collect())
}

/// The codes of those that are more than a note.
fn codes(output: &Output) -> anyhow::Result<Vec<String>> {
    let serious = findings(output)?.into_iter().filter(|finding| finding["severity"] != "notice");
    Ok(serious.filter_map(|finding| finding["code"].as_str().map(str::to_owned)).collect())
}

/// Each is there, of that node.
fn found(output: &Output, node: &str, awaited: &[Awaited]) -> anyhow::Result<()> {
    let findings = findings(output)?;
    for (code, remedy) in awaited {
        let finding = findings.iter().find(|finding| finding["code"] == *code);
        let finding = finding.with_context(|| format!("no {code} in {}", text(output)))?;
        ensure!(finding["node"] == node, "{finding}");
        ensure!(finding["remedy"].as_str().is_some_and(|said| said.contains(remedy)), "no {remedy:?} in {finding}");
    }
    Ok(())
}

/// Breaks and checks node 1 in one go, and repairs it whatever was found.
fn broken(pair: &Pair, breaks: &str, check: &str, repair: &str, on: u8) -> anyhow::Result<Output> {
    let broke = pair.node(on).ok(breaks);
    let output = broke.and_then(|_| pair.node(1).run_for(check, VERIFY_LIMIT));
    pair.node(on).ok_for(repair, VERIFY_LIMIT)?;
    output
}

/// This machine's time for both nodes.
fn set_clocks(pair: &Pair) -> anyhow::Result<()> {
    [1, 2].into_iter().try_for_each(|nr| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
        pair.node(nr).ok(&format!("date -s @{now:.3}")).map(drop)
    })
}

#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn a_healthy_pair_has_no_findings_and_each_fault_its_own() {
    on_the_pair("check", |pair| {
        let here = |nr: u8| pair.node(nr).run_for("bascule check --json", VERIFY_LIMIT);

        // What libxl runs, DRBD, and the daemon, all at once.
        pair.stop_serving(1)?;
        let output = broken(
            pair,
            "cd /etc/xen/scripts; chmod 0644 vif-bridge; mv hotplugpath.sh /run/; rm /dev/stdin; drbdadm net-options --ping-int=20 r0; drbdadm disconnect r1",
            "bascule check --json",
            "cd /etc/xen/scripts; chmod 0755 vif-bridge; mv /run/hotplugpath.sh .; ln -sf /proc/self/fd/0 /dev/stdin; drbdadm adjust all",
            1,
        );
        pair.serve(1)?;
        let output = output?;
        ensure!(output.status == 5, "exit {}: {}", output.status, text(&output));
        found(
            &output,
            "node1",
            &[
                ("daemon-down", "bascule serve"),
                ("hotplug-program", "chmod 0755 /etc/xen/scripts/vif-bridge"),
                ("hotplugpath-missing", "xen-utils-common"),
                ("device-link-missing", "ln -s /proc/self/fd/0 /dev/stdin"),
                ("setting-differs", "drbdadm adjust r0"),
                ("not-connected", "drbdadm connect r1"),
            ],
        )?;
        pair.lab().wait_until_replicated(VERIFY_LIMIT)?;

        // Healthy, each host alone.
        for nr in [1, 2] {
            let output = here(nr)?;
            ensure!(codes(&output)? == DESERVED, "node{nr}: {}", text(&output));
            let json: Value = serde_json::from_str(&output.stdout)?;
            ensure!(json["firewall"]["findings"].is_array(), "{json}");
        }
        refused(&pair.node(1).run("bascule check --drbd")?, 0, &["its kernel agree", "DRBD 8.4", "[drbd]"])?;

        // And together.
        pair.create(VM0, 1)?;
        let together = || pair.node(1).run_for("bascule check --peer node2 --json", VERIFY_LIMIT);
        pair.wait("the clocks agree", || {
            set_clocks(pair)?;
            Ok(!codes(&together()?)?.contains(&"clock-differs".to_owned()))
        })?;
        let output = together()?;
        ensure!(output.status == 0 && codes(&output)?.is_empty(), "exit {}: {}", output.status, text(&output));
        let json: Value = serde_json::from_str(&output.stdout)?;
        ensure!(json["there"]["xen"]["Ok"]["free_kib"].as_u64() > Some(0), "{json}");
        ensure!(!output.stdout.contains("secret"), "{json}");

        // A peer that is not as this host's domains need it.
        let output = broken(
            pair,
            "ip link set xenbr0 down; ip link set xenbr0 name xenbr7; ip link set eth1 mtu 1500; date -s '+5 seconds'",
            "bascule check --peer node2 --json",
            "ip link set xenbr7 name xenbr0; ip link set xenbr0 up; ip link set eth1 mtu 9000",
            2,
        );
        set_clocks(pair)?;
        let output = output?;
        ensure!(output.status == 7, "exit {}: {}", output.status, text(&output));
        found(
            &output,
            "node2",
            &[
                ("bridge-missing", "ip link add xenbr0 type bridge"),
                ("mtu-differs", "ip link set eth1 mtu 9000"),
                ("clock-differs", "NTP"),
            ],
        )?;

        // One that does not answer.
        pair.stop_serving(2)?;
        let output = pair.node(1).run_for("bascule check --peer node2", VERIFY_LIMIT);
        pair.serve(2)?;
        refused(&output?, 5, &["error: node2: ", "[peer-silent]", "refused", "systemctl status bascule"])?;
        pair.check(VM0, 1)
    });
}
