//! What somebody sees who listens on the relocation link.

use anyhow::ensure;
use bascule_lab::pair::{Pair, VM0};
use bascule_lab::{Link, Output, pages_in};

use super::{on_the_encrypted_pair, text};

/// Of the guest's memory, at least as many pages as must be seen where it goes in clear: a quarter of what it checks.
const PAGES_MIN: usize = 1000;

/// How a migration went, and how many pages of the guest's memory were on the link for all to read.
fn watched(pair: &Pair, from: u8) -> anyhow::Result<(Output, usize)> {
    let capture = pair.node(from).capture(Link::Relocation)?;
    let output = pair.migrate(VM0, from, "")?;
    let seen = pages_in(&capture.end()?);
    ensure!(output.success(), "{}", text(&output));
    pair.check(VM0, 3 - from)?;
    Ok((output, seen))
}

fn configure(pair: &Pair, security: &str) -> anyhow::Result<()> {
    (1..=2).try_for_each(|nr| pair.configure(nr, &format!("[security]\n{security}\n")))
}

#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn no_page_of_the_memory_crosses_the_link_in_clear() {
    on_the_encrypted_pair("captured", |pair| {
        pair.create(VM0, 1)?;
        for (from, security, words) in
            [(1, "kernel-tls = true", "TLS 1.3, in the kernel"), (2, "kernel-tls = false", "TLS 1.3, relayed")]
        {
            configure(pair, security)?;
            let (output, seen) = watched(pair, from)?;
            ensure!(text(&output).contains(words), "no {words:?} in: {}", text(&output));
            ensure!(seen == 0, "{seen} pages were seen ({words})");
        }
        // What is looked for is there, when both let it be; and that is said.
        configure(pair, "in-clear = ['10.99.0.0/24']")?;
        let (output, seen) = watched(pair, 1)?;
        ensure!(text(&output).contains("in clear, and nobody proves who he is"), "{}", text(&output));
        ensure!(seen >= PAGES_MIN, "only {seen} pages were found where all are in clear");
        // One alone cannot let it.
        pair.configure(1, "")?;
        let refused = pair.migrate(VM0, 2, "")?;
        ensure!(!refused.success() && text(&refused).contains("vm0 was not touched"), "{}", text(&refused));
        pair.check(VM0, 2)
    });
}
