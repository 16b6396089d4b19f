//! What preflight finds, each thing by its code, its node and what it says to type; and a domain whose disks and bridge it has to see through.

use anyhow::ensure;
use bascule::preflight::Code;
use bascule_lab::lan;
use bascule_lab::pair::{Pair, VM0};

use crate::findings::{Awaited, Found};
use crate::{VERIFY_LIMIT, finished, on_the_pair, text, whole};

/// A destination's configuration whole, for it has a table [guests] already.
pub(crate) fn configure(pair: &Pair, nr: u8, guests: &str) -> anyhow::Result<()> {
    let whole = format!(
        "[security]\nin-clear = ['10.99.0.0/24']\n[guests]\nkernels = ['/boot', '/var/lib/bascule-lab']\n{guests}\n\
         [timeouts.destination]\nauthentication = 30\nhello = 30\n"
    );
    pair.configure_whole(nr, &whole, "configuration taken over")
}

/// A MiB each: a device of the kernel's own, which can be shared, and a file under a loop device, which is only read.
const RAM_DISK: &str = "modprobe brd rd_nr=1 rd_size=1024";
const LOOP: &str = "truncate -s 1M /run/loop6.img && busybox losetup /dev/loop6 /run/loop6.img";
const NO_DISKS: &str = "{ busybox losetup -d /dev/loop6; modprobe -r brd; } 2>/dev/null; true";

/// The process of a node's daemon.
const DAEMON: &str = "$(</run/lab-daemon)";

#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn each_obstacle_has_its_code_and_says_what_to_type() {
    on_the_pair("preflight", |pair| {
        let done = obstacles(pair);
        for nr in [1, 2] {
            pair.node(nr).run(&format!("pkill -x sleep; kill -CONT {DAEMON}"))?;
            pair.node(nr).run_for("bascule destroy vm0", VERIFY_LIMIT)?;
            pair.node(nr).ok(NO_DISKS)?;
        }
        done
    });
}

pub(crate) const NOT_REPLICATED: &[Awaited] = &[
    (Code::DiskNotReplicated, 1, &["xvdc", "/dev/ram0", "--shared-disk xvdc"]),
    (Code::DiskNotAllowed, 2, &["xvdb", "[guests]", "read-only-disks = [", "/dev/loop6"]),
];
pub(crate) const NOT_THERE: &[Awaited] = &[
    (Code::SharedDiskUnknown, 1, &["xvdz", "xvda", "xvdb", "xvdc"]),
    (Code::BridgeUnknown, 1, &["eth9", "xenbr0"]),
    (Code::BridgeMissing, 2, &["nowhere", "ip link add nowhere type bridge", "--map-bridge nowhere=NEW"]),
    (Code::DiskNotAllowed, 2, &["xvdc", "shared-disks = [", "/dev/ram0"]),
];
pub(crate) const ANOTHER_DISK: &[Awaited] = &[(Code::DiskDiffers, 2, &["/dev/loop6", "0 bytes", "Make both the same"])];
pub(crate) const HELD_DISK: &[Awaited] = &[
    (Code::HeldOpen, 2, &["/dev/ram0", "process", "(sleep)", "End that user first"]),
    (Code::DiskNotCompared, 2, &["xvdb", "sha256sum /dev/loop6"]),
];
pub(crate) const PAUSED: &[Awaited] = &[
    (Code::CannotSuspend, 1, &["vm0", "CONFIG_HIBERNATE_CALLBACKS"]),
    (Code::NotRunning, 1, &["vm0", "paused", "let it run first"]),
];
pub(crate) const TWO_PRIMARIES: &[Awaited] = &[
    (Code::PeerPrimary, 1, &["r0/0", "drbdadm secondary r0"]),
    (Code::DestinationPrimary, 2, &["r0/0", "drbdadm secondary r0"]),
    (Code::HeldOpen, 2, &["r0/0", "process", "(sleep)"]),
];
pub(crate) const ALONE: &[Awaited] = &[
    (Code::NotConnected, 1, &["r0/0", "drbdadm connect r0"]),
    (Code::NotConnected, 2, &["StandAlone", "drbdadm connect r0"]),
];
pub(crate) const DISKLESS: &[Awaited] = &[
    (Code::NotUpToDate, 1, &["r0/0", "UpToDate here and Diskless on", "There look", "drbdadm attach r0"]),
    (Code::NotUpToDate, 2, &["r0/0", "Diskless here", "Here look", "drbdadm attach r0"]),
];
pub(crate) const UNFINISHED: &[Awaited] = &[(Code::MigrationOpen, 1, &["vm0", "r0/0", "bascule recover --dry-run "])];

fn obstacles(pair: &Pair) -> anyhow::Result<()> {
    let since = lan::monotonic_now();
    pair.lab().nodes().iter().try_for_each(|node| node.ok(RAM_DISK).map(drop))?;
    pair.node(1).ok(LOOP)?;
    let disks =
        "sed 's#^disk = \\[#& \"phy:/dev/loop6,xvdb,r\", \"phy:/dev/ram0,xvdc,w\",#' /etc/xen/vm0.cfg >/run/vm0.cfg";
    pair.node(1).ok_for(&format!("{disks} && bascule create /run/vm0.cfg"), VERIFY_LIMIT)?;
    pair.heard(VM0, 1)?;

    // Disks and bridges.
    Found::by(pair, "")?.all(NOT_REPLICATED)?;
    let shared = "--shared-disk xvdc";
    Found::by(pair, &format!("{shared} --shared-disk xvdz --map-bridge eth9=x --map-bridge xenbr0=nowhere"))?
        .all(NOT_THERE)?;
    configure(pair, 2, "shared-disks = ['/dev/ram0']\nread-only-disks = ['/dev/loop*']")?;
    Found::by(pair, shared)?.all(ANOTHER_DISK)?;
    pair.node(2).ok(LOOP)?;
    pair.node(2).ok("setsid sleep 1000 </dev/ram0 >/dev/null 2>&1 &")?;
    Found::by(pair, shared)?.all(HELD_DISK)?;
    pair.node(2).ok("pkill -x sleep")?;
    let clear = Found::by(pair, shared)?;
    ensure!(clear.errors() == 0, "{clear:?}");

    // The guest.
    let feature = "xenstore-write /local/domain/$(xl domid vm0)/control/feature-suspend";
    pair.node(1).ok(&format!("{feature} 0; bascule pause vm0"))?;
    Found::by(pair, shared)?.all(PAUSED)?;
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
    found?.all(TWO_PRIMARIES)?;
    for (breaks, mends, awaited) in
        [("drbdadm disconnect r0", "drbdadm adjust r0", ALONE), ("drbdadm detach r0", "drbdadm attach r0", DISKLESS)]
    {
        pair.node(2).ok(breaks)?;
        let found = Found::by(pair, shared);
        pair.node(2).ok(mends)?;
        found?.all(awaited)?;
        pair.lab().wait_until_replicated(VERIFY_LIMIT)?;
    }

    // A migration whose process has died, and that nobody has taken up yet.
    pair.node(1).ok(&format!("kill -STOP {DAEMON}"))?;
    pair.migrate(VM0, 1, &format!("{shared} --fail-at s-opened:kill"))?;
    let found = Found::by(pair, shared);
    pair.node(1).ok(&format!("kill -CONT {DAEMON}"))?;
    found?.all(UNFINISHED)?;
    finished(pair)?;

    // Nothing of all that has changed anything.
    pair.heard_again(VM0, 1)?;
    pair.check(VM0, 1)?;
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
