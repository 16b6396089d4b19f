//! Hosts that are known by certificates of their site's authority.

use anyhow::{Context, ensure};
use bascule_lab::Node;
use bascule_lab::pair::VM0;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};

use super::{on_the_encrypted_pair, refused, text};

const FILES: &str = "[security]\nauthority = '/run/ca.pem'\ncertificate = '/run/host.pem'\nkey = '/run/host.key'\n\
    names = ['node1', 'node2.example.org']\n";
/// A year in which none of this runs any more.
const LATER: i32 = 4000;

/// An authority.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> anyhow::Result<Authority> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Authority(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    /// Gives a node a certificate for a name, until a year.
    fn certify(&self, node: &Node, name: &str, until: i32) -> anyhow::Result<()> {
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.0)?;
        for (file, text) in [("host.pem", certificate.pem()), ("host.key", key.serialize_pem())] {
            put(node, file, &text)?;
        }
        Ok(())
    }
}

fn put(node: &Node, file: &str, text: &str) -> anyhow::Result<()> {
    node.write_file(&format!("/run/{file}"), 0o600, text.as_bytes())
}

#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn certificates_of_the_sites_authority_are_enough_and_no_others() {
    on_the_encrypted_pair("authority", |pair| {
        let (ours, other) = (Authority::new()?, Authority::new()?);
        for (nr, name) in [(1, "node1"), (2, "node2.example.org")] {
            put(pair.node(nr), "ca.pem", &ours.0.pem())?;
            ours.certify(pair.node(nr), name, LATER)?;
            pair.configure(nr, FILES)?;
        }
        pair.create(VM0, 1)?;
        let wrong: [(&Authority, &str, i32); 3] =
            [(&ours, "node1", 2001), (&other, "node1", LATER), (&ours, "web.example.org", LATER)];
        for (authority, name, until) in wrong {
            authority.certify(pair.node(1), name, until)?;
            let before = refusals(pair.node(2))?;
            refused(&pair.migrate(VM0, 1, "")?, 1, &["bascule pair", "vm0 was not touched"])?;
            pair.wait("a line in the log", || Ok(refusals(pair.node(2))? > before))?;
        }
        // The other way round: it is the destination that is not what it should be.
        ours.certify(pair.node(1), "node1", LATER)?;
        other.certify(pair.node(2), "node2.example.org", LATER)?;
        refused(&pair.migrate(VM0, 1, "")?, 1, &["TLS failed", "vm0 was not touched"])?;
        ours.certify(pair.node(2), "node2.example.org", LATER)?;
        let moved = pair.migrate(VM0, 1, "")?;
        ensure!(moved.success(), "{}", text(&moved));
        pair.check(VM0, 2)?;
        pair.heard(VM0, 2).context("after a migration with certificates")
    });
}

/// How often the node's daemon has said that a stranger did not prove who it is.
fn refusals(node: &Node) -> anyhow::Result<u32> {
    let count = node.run("grep -c 'refused: it did not prove who it is.*TLS failed' /var/log/bascule.log")?.stdout;
    Ok(count.trim().parse()?)
}
