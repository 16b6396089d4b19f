//! What preflight finds, each thing by its code, its node and what it says to type; and a domain whose disks and bridge it has to see through.

use anyhow::{Context, ensure};
use bascule_lab::lan;
use bascule_lab::pair::{Pair, VM0};
use serde_json::Value;

use crate::{VERIFY_LIMIT, on_the_pair, text, whole};

/// A destination's configuration whole, for it has a table [guests] already.
fn configure(pair: &Pair, nr: u8, guests: &str) -> anyhow::Result<()> {
    let whole = format!(
        "[security]\nin-clear = ['10.99.0.0/24']\n[guests]\nkernels = ['/boot', '/var/lib/bascule-lab']\n{guests}\n\
         [timeouts.destination]\nauthentication = 30\nhello = 30\n"
    );
    pair.configure_whole(nr, &whole, "configuration taken over")
}

/// What a dry run finds.
struct Found(Vec<Value>);

impl Found {
    fn by(pair: &Pair, options: &str) -> anyhow::Result<Found> {
        let output = pair.migrate(VM0, 1, &format!("--dry-run --json {options}"))?;
        let mut events = output.stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let findings = events.rfind(|event| event["event"] == "findings");
        let findings = findings.and_then(|event| event["findings"].as_array().cloned());
        let found = Found(findings.with_context(|| format!("no findings: {}", text(&output)))?);
        ensure!(output.status == if found.errors() == 0 { 0 } else { 4 }, "exit {}: {found:?}", output.status);
        Ok(found)
    }

    fn errors(&self) -> usize {
        self.0.iter().filter(|finding| finding["severity"] == "error").count()
    }

    /// A finding of this code on this node whose two sentences have these words.
    fn has(&self, code: &str, nr: u8, words: &[&str]) -> anyhow::Result<&Found> {
        let fits = |finding: &&Value| {
            let said = format!("{} {}", finding["found"], finding["remedy"]);
            finding["code"] == code
                && finding["node"] == format!("node{nr}")
                && words.iter().all(|word| said.contains(word))
        };
        ensure!(self.0.iter().any(|finding| fits(&finding)), "no {code} on node{nr} with {words:?}: {self:?}");
        Ok(self)
    }
}

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|finding| {
            let word = |key: &str| finding[key].as_str().unwrap_or_default();
            write!(
                f,
                "\n{} {}: {} [{}] {}",
                word("severity"),
                word("node"),
                word("found"),
                word("code"),
                word("remedy")
            )
        })
    }
}

/// Files of a MiB under two loop devices.
const LOOPS: &str =
    "for n in 6 7; do truncate -s 1M /run/loop$n.img && busybox losetup /dev/loop$n /run/loop$n.img || exit; done";
const NO_LOOPS: &str = "for n in 6 7; do busybox losetup -d /dev/loop$n; done 2>/dev/null; true";

#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn each_obstacle_has_its_code_and_says_what_to_type() {
    on_the_pair("preflight", |pair| {
        let done = obstacles(pair);
        for nr in [1, 2] {
            pair.node(nr).run("pkill -x sleep")?;
            pair.node(nr).run_for("bascule destroy vm0", VERIFY_LIMIT)?;
            pair.node(nr).ok(NO_LOOPS)?;
        }
        done
    });
}

fn obstacles(pair: &Pair) -> anyhow::Result<()> {
    let since = lan::monotonic_now();
    pair.node(1).ok(LOOPS)?;
    let disks =
        "sed 's#^disk = \\[#& \"phy:/dev/loop6,xvdb,r\", \"phy:/dev/loop7,xvdc,w\",#' /etc/xen/vm0.cfg >/run/vm0.cfg";
    pair.node(1).ok_for(&format!("{disks} && bascule create /run/vm0.cfg"), VERIFY_LIMIT)?;
    pair.heard(VM0, 1)?;

    // Disks and bridges.
    Found::by(pair, "")?.has("disk-not-replicated", 1, &["xvdc", "/dev/loop7", "--shared-disk xvdc"])?.has(
        "disk-not-allowed",
        2,
        &["xvdb", "[guests]", "read-only-disks = [", "/dev/loop6"],
    )?;
    let shared = "--shared-disk xvdc";
    Found::by(pair, &format!("{shared} --shared-disk xvdz --map-bridge eth9=x --map-bridge xenbr0=nowhere"))?
        .has("shared-disk-unknown", 1, &["xvdz", "xvda", "xvdb", "xvdc"])?
        .has("bridge-unknown", 1, &["eth9", "xenbr0"])?
        .has("bridge-missing", 2, &["nowhere", "ip link add nowhere type bridge", "--map-bridge nowhere=NEW"])?
        .has("disk-not-allowed", 2, &["xvdc", "shared-disks = [", "/dev/loop7"])?;
    configure(pair, 2, "shared-disks = ['/dev/loop7']\nread-only-disks = ['/dev/loop*']")?;
    Found::by(pair, shared)?.has("disk-differs", 2, &["/dev/loop6", "0 bytes"])?;
    pair.node(2).ok(&format!("{LOOPS}; setsid sleep 1000 </dev/loop7 >/dev/null 2>&1 &"))?;
    let found = Found::by(pair, shared)?;
    found.has("held-open", 2, &["/dev/loop7", "process", "(sleep)"])?.has("disk-not-compared", 2, &["xvdb"])?;
    pair.node(2).ok("pkill -x sleep")?;
    let clear = Found::by(pair, shared)?;
    ensure!(clear.errors() == 0, "{clear:?}");

    // The guest.
    let feature = "xenstore-write /local/domain/$(xl domid vm0)/control/feature-suspend";
    pair.node(1).ok(&format!("{feature} 0; bascule pause vm0"))?;
    Found::by(pair, shared)?.has("cannot-suspend", 1, &["vm0", "CONFIG_HIBERNATE_CALLBACKS"])?.has(
        "not-running",
        1,
        &["paused"],
    )?;
    pair.node(1).ok(&format!("{feature} 1; bascule unpause vm0"))?;

    // DRBD.
    let net = "drbdsetup net-options ipv4:10.98.0.1:7788 ipv4:10.98.0.2:7788";
    pair.node(1).ok(&format!("{net} --allow-two-primaries=yes"))?;
    pair.node(2).ok("drbdadm primary r0; setsid sleep 1000 </dev/drbd0 >/dev/null 2>&1 &")?;
    pair.node(2).until(
        "it is Primary",
        "[[ $(</proc/drbd) == *' 0: cs:Connected ro:Primary/Primary'* ]]",
        VERIFY_LIMIT,
    )?;
    let found = Found::by(pair, shared);
    pair.node(2).ok("pkill -x sleep; for n in 1 2 3 4 5; do drbdadm secondary r0 && break; sleep 1; done")?;
    pair.node(1).ok(&format!("{net} --allow-two-primaries=no"))?;
    found?.has("peer-primary", 1, &["r0/0", "drbdadm secondary r0"])?.has("destination-primary", 2, &["r0/0"])?.has(
        "held-open",
        2,
        &["r0/0", "process", "(sleep)"],
    )?;
    pair.node(2).ok("drbdadm disconnect r0")?;
    let found = Found::by(pair, shared);
    pair.node(2).ok("drbdadm adjust r0")?;
    found?.has("not-connected", 1, &["r0/0", "drbdadm connect r0"])?.has("not-connected", 2, &["StandAlone"])?;
    pair.lab().wait_until_replicated(VERIFY_LIMIT)?;

    // Nothing of all that has changed anything.
    pair.check(VM0, 1)?;
    pair.heard_again(VM0, 1)?;
    whole(pair, VM0, since).map(drop)
}

/// The other end has another minor for r0, and another name for the bridge. One way by the destination's configuration, back by the command
/// line: that the guest is heard shows that its nic is where it should be.
#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn disks_under_many_names_move_to_other_minors_and_another_bridge() {
    on_the_pair("many-names", |pair| {
        let other = |from: &str, to: &str| {
            format!(
                "drbdadm down r0 && sed -i 's#/dev/drbd{from} minor {from}#/dev/drbd{to} minor {to}#' /etc/drbd.d/r0.res && drbdadm up r0"
            )
        };
        let rename = |from: &str, to: &str| {
            format!("ip link set {from} down && ip link set {from} name {to} && ip link set {to} up")
        };
        pair.node(2).ok_for(&format!("{} && {}", other("0", "9"), rename("xenbr0", "br-lan")), VERIFY_LIMIT)?;
        let done = pair.lab().wait_until_replicated(VERIFY_LIMIT).and_then(|()| to_and_fro(pair));
        for nr in [1, 2] {
            pair.node(nr).run_for("bascule destroy vm0; rm -rf /dev/drbd/by-res", VERIFY_LIMIT)?;
        }
        pair.node(2).ok_for("drbdadm secondary r0; true", VERIFY_LIMIT)?;
        pair.node(2).ok_for(&format!("{}; {}", other("9", "0"), rename("br-lan", "xenbr0")), VERIFY_LIMIT)?;
        done
    });
}

/// Where vm0 runs and which of the node's minors are Primary.
fn runs_with(pair: &Pair, nr: u8, minors: &[u32]) -> anyhow::Result<()> {
    let shown = pair.node(nr).ok("xl list vm0; cat /proc/drbd")?;
    for minor in minors {
        let expected = format!("{minor}: cs:Connected ro:Primary/Secondary");
        ensure!(shown.contains(&expected), "no {expected:?} on node{nr}: {shown}");
    }
    pair.heard(VM0, nr)
}

fn to_and_fro(pair: &Pair) -> anyhow::Result<()> {
    let since = lan::monotonic_now();
    for nr in [1, 2] {
        pair.node(nr).ok("head -c 1M /dev/zero >/run/cd.iso")?;
    }
    // What udev would do.
    pair.node(1)
        .ok("mkdir -p /dev/drbd/by-res/r1 && ln -s ../../../drbd1 /dev/drbd/by-res/r1/0 && drbdadm primary r0 r1")?;
    let disks = "\"phy:/dev/drbd0,xvda,w\", \"phy:/dev/drbd/by-res/r1/0,xvdb,w\", \"drbd:r1/1,xvdc,w\", \"/run/cd.iso,raw,xvdd,cdrom\"";
    let file = format!(
        "sed -e 's#^disk = .*#disk = [ {disks} ]#' -e 's#lab.disks=xvda#lab.disks=xvda,xvdb,xvdc#' /etc/xen/vm0.cfg >/run/vm0.cfg"
    );
    pair.node(1).ok_for(&format!("{file} && bascule create /run/vm0.cfg"), VERIFY_LIMIT)?;
    runs_with(pair, 1, &[0, 1, 2])?;

    configure(pair, 1, "read-only-disks = ['/run/*.iso']")?;
    configure(pair, 2, "read-only-disks = ['/run/*.iso']\nbridges = ['xenbr0=br-lan']")?;
    let output = pair.migrate(VM0, 1, "")?;
    ensure!(output.success() && text(&output).contains("dual-primary"), "{}", text(&output));
    runs_with(pair, 2, &[9, 1, 2])?;
    let config = pair.node(2).ok("bascule config domain vm0")?;
    for word in ["\"r0/0\"", "\"r1/0\"", "\"r1/1\"", "\"/run/cd.iso\"", "\"br-lan\""] {
        ensure!(config.contains(word), "no {word} in {config}");
    }

    // From here on never two Primaries.
    let output = pair.migrate(VM0, 2, "--map-bridge br-lan=xenbr0")?;
    ensure!(output.success() && text(&output).contains("single-primary"), "{}", text(&output));
    runs_with(pair, 1, &[0, 1, 2])?;
    whole(pair, VM0, since)?;
    pair.shut_down(VM0, 1)?;
    pair.check_file_systems(VM0, 1)
}
