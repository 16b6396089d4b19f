//! Domains of the types that have a processor of their own: PV is every other test's.

use anyhow::ensure;
use bascule_lab::lan;
use bascule_lab::pair::{Pair, VM0};

use crate::{VERIFY_LIMIT, on_the_pair, text, whole};

/// A domain of that type, there and back. Emulated processors have no nested paging that a guest survives, hence `hap = 0`.
fn moves(pair: &Pair, kind: &str) -> anyhow::Result<()> {
    let since = lan::monotonic_now();
    let file = format!("sed 's/^type = .*/type = \"{kind}\"\\nhap = 0/' {} >/run/{kind}.cfg", VM0.file());
    pair.node(1).ok_for(&format!("{file} && bascule create /run/{kind}.cfg"), VERIFY_LIMIT)?;
    pair.heard(VM0, 1)?;
    for from in [1, 2] {
        let output = pair.migrate(VM0, from, "")?;
        ensure!(output.success() && text(&output).contains("single-primary"), "{kind}: {}", text(&output));
        pair.check(VM0, 3 - from)?;
    }
    whole(pair, VM0, since)?;
    pair.shut_down(VM0, 1)?;
    pair.check_file_systems(VM0, 1)
}

#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn a_pvh_domain_moves_there_and_back() {
    on_the_pair("pvh", |pair| moves(pair, "pvh"));
}

#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn an_hvm_domain_moves_there_and_back() {
    on_the_pair("hvm", |pair| moves(pair, "hvm"));
}
