//! Two hosts on which nothing is set: no configuration, no key, no peer.

use anyhow::ensure;
use bascule_lab::pair::{Pair, VM0};

use super::{VERIFY_LIMIT, on_the_encrypted_pair, refused, text};

/// As it is after an installation: the daemon runs, and has everything by default. The guest's kernel is where kernels are by default.
fn install_anew(pair: &Pair) -> anyhow::Result<()> {
    for nr in 1..=2 {
        pair.stop_serving(nr)?;
        pair.node(nr).ok("rm -rf /etc/bascule/* /var/lib/bascule/identity.key /var/lib/bascule/peers")?;
        pair.node(nr).ok("mkdir -p /var/lib/xen/lab; cp -r /var/lib/bascule-lab/guest /var/lib/xen/lab/")?;
        pair.serve_as_configured(nr)?;
    }
    let create = format!(
        "sed s,/var/lib/bascule-lab,/var/lib/xen/lab, {} >/run/vm0.cfg; bascule create /run/vm0.cfg",
        VM0.file()
    );
    pair.node(1).ok_for(&create, VERIFY_LIMIT)?;
    pair.heard(VM0, 1)
}

#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn three_commands_are_enough_for_a_first_encrypted_migration() {
    on_the_encrypted_pair("fresh", |pair| {
        install_anew(pair)?;
        // Strangers to each other, they move nothing.
        refused(&pair.migrate(VM0, 1, "")?, 1, &["of no peer of this host", "bascule pair", "vm0 was not touched"])?;

        let code = pair.open_door(2)?;
        pair.node(1).ok(&format!("bascule pair node2 --code {code}"))?;
        let moved = pair.migrate(VM0, 1, "")?;
        ensure!(moved.success() && text(&moved).contains("TLS 1.3"), "{}", text(&moved));
        pair.check(VM0, 2)?;

        // And back, with nothing done for it: both know each other.
        let back = pair.migrate(VM0, 2, "")?;
        ensure!(back.success(), "{}", text(&back));
        pair.check(VM0, 1)?;

        // Who was forgotten is a stranger again.
        pair.node(2).ok("bascule unpair node1")?;
        refused(
            &pair.migrate(VM0, 1, "")?,
            1,
            &["does not know this one's key", "bascule pair", "vm0 was not touched"],
        )?;
        pair.node(2).ok("test -z \"$(ls /var/lib/bascule/peers)\"")?;
        pair.check(VM0, 1)
    });
}

#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn a_wrong_code_pairs_nobody() {
    on_the_encrypted_pair("wrong-code", |pair| {
        for nr in 1..=2 {
            pair.node(nr).ok("rm -rf /var/lib/bascule/peers")?;
        }
        let code = pair.open_door(2)?;
        let last = if code.ends_with('0') { "1" } else { "0" };
        let wrong = format!("{}{last}", &code[..code.len() - 1]);
        let join = |code: &str| pair.node(1).run(&format!("bascule pair node2 --code {code}"));
        refused(&join(&wrong)?, 1, &["not the one that is shown here"])?;
        refused(&join(&code.replace(&code[..4], "0000"))?, 1, &["mistyped, or this is not the host"])?;
        ensure!(join(&code)?.success(), "the right code");
        refused(&join(&code)?, 1, &["not being paired", "type bascule pair there"])
    });
}
