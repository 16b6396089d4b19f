//! Domains of the types that have a processor of their own: PV is every other test's.

use anyhow::ensure;
use bascule_lab::lan;
use bascule_lab::pair::{MIGRATION_LIMIT, Pair, VM0};

use crate::{VERIFY_LIMIT, on_the_pair, text, whole};

/// A domain of that type goes to the other host. Emulated processors have no nested paging that a guest survives, hence `hap = 0`.
fn moves(pair: &Pair, kind: &str, kernel: &str) -> anyhow::Result<()> {
    let since = lan::monotonic_now();
    let edits = format!("s/^type = .*/type = \"{kind}\"\\nhap = 0/; s#/guest/kernel#/guest/{kernel}#");
    let file = format!("sed '{edits}' {} >/run/{kind}.cfg", VM0.file());
    pair.node(1).ok_for(&format!("{file} && bascule create /run/{kind}.cfg"), VERIFY_LIMIT)?;
    // An HVM domain decompresses its kernel, which takes it minutes.
    pair.lab().witness().wait_for_node(VM0.name, 1, MIGRATION_LIMIT)?;
    let output = pair.migrate(VM0, 1, "")?;
    ensure!(output.success() && text(&output).contains("single-primary"), "{kind}: {}", text(&output));
    pair.check(VM0, 2)?;
    whole(pair, VM0, since)?;
    pair.shut_down(VM0, 2)?;
    pair.check_file_systems(VM0, 2)
}

#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn a_pvh_domain_moves() {
    on_the_pair("pvh", |pair| moves(pair, "pvh", "kernel"));
}

#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn an_hvm_domain_moves() {
    on_the_pair("hvm", |pair| moves(pair, "hvm", "vmlinuz"));
}
