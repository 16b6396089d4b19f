//! What users of `xl migrate` have today: Xen's and DRBD's own hotplug scripts, and two Primaries allowed.

use anyhow::Context;
use bascule_lab::Node;
use bascule_lab::pair::{Guest, Pair};

use crate::say::say;

/// Runs `work` with the stock scripts on a clean pair; whatever becomes of it, no domain is left and ours are back afterwards.
pub(super) fn with_stock<T>(pair: &Pair, guest: Guest, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let switched = pair.lab().nodes().iter().try_for_each(|node| switch_on(node, guest));
    let done = switched.context("The stock scripts cannot be put in place").and_then(|()| work());
    // Its domains go while the scripts that made their devices are there.
    let cleaned = pair.reset().context("The pair could not be cleaned");
    let back = put_back(pair, guest);
    let tidied = back.and(cleaned);
    if let (Err(_), Err(error)) = (&done, &tidied) {
        say(&format!("{error:#}"));
    }
    done.and_then(|value| tidied.map(|()| value))
}

/// Puts our programs and the setting back, on both nodes although one may fail; nothing happens where they are.
pub(super) fn put_back(pair: &Pair, guest: Guest) -> anyhow::Result<()> {
    let [first, second] = pair.lab().nodes().each_ref().map(|node| switch_off(node, guest));
    first?;
    second
}

fn switch_on(node: &Node, guest: Guest) -> anyhow::Result<()> {
    node.ok(&format!(
        "set -e
        cd /etc/xen/scripts
        for name in block-drbd vif-bridge; do
            [ -e $name.bascule ] || mv $name $name.bascule
            cp -p $name.stock $name
        done
        drbdadm net-options --allow-two-primaries=yes {}",
        guest.resource
    ))
    .map(drop)
}

fn switch_off(node: &Node, guest: Guest) -> anyhow::Result<()> {
    node.ok(&format!(
        "cd /etc/xen/scripts
        for name in block-drbd vif-bridge; do
            [ ! -e $name.bascule ] || mv $name.bascule $name
        done
        drbdadm adjust {}",
        guest.resource
    ))
    .map(drop)
    .with_context(|| format!("The stock scripts are still in place on {}: `cargo xtask lab push`", node.name()))
}
