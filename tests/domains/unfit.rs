//! A domain that could hardly be less fit to move is told all of it at once; and what only another host can lack.

#![expect(clippy::print_stdout, reason = "what cannot be tested here is said")]

use bascule::preflight::Code;
use bascule_lab::pair::Pair;

use crate::findings::{Awaited, Found, NOT_HERE};
use crate::preflight::configure;
use crate::{VERIFY_LIMIT, on_the_encrypted_pair, on_the_pair};

/// What its disks are, beside volumes: one file is gone as soon as the domain has begun, another is at the source alone.
const FILES: &str = "mkdir -p /run/odd && cd /run/odd && truncate -s 1M shared.img disk.qcow2 gone.img here.img";

/// QEMU serves what is a file, and what it is told to; it cannot open a volume that is Secondary, which is nobody's loss but the domain's.
const FILE: &str = r#"
name = "odd"
uuid = "6d3a4a52-0b3c-4c8e-9a57-0000000000dd"
type = "pvh"
hap = 0
memory = 128
kernel = "/var/lib/bascule-lab/guest/kernel"
ramdisk = "/var/lib/bascule-lab/guest/initrd"
disk = [
    "drbd:r0,xvda,w",
    "format=raw,backendtype=qdisk,vdev=xvdb,access=r,target=/dev/drbd1",
    "format=raw,backendtype=qdisk,vdev=xvdc,access=r,target=/dev/drbd1",
    "format=raw,vdev=xvdd,access=w,target=/run/odd/shared.img",
    "format=qcow2,vdev=xvde,access=r,target=/run/odd/disk.qcow2",
    "format=raw,vdev=xvdf,access=r,target=/run/odd/gone.img",
    "format=raw,vdev=xvdg,access=r,target=/run/odd/here.img",
]
"#;

/// What libxl keeps of a PCI device that is passed through, in its two places, and of a virtual NUMA node. The emulated machines have no
/// IOMMU, without which it gives no device away; and where there is no NUMA it builds no such domain (`xc_domain_getvnuma failed`).
const IN_LIBXL: &str = r#"id=$(xl domid odd) && xenstore-write /local/domain/0/backend/pci/$id/0/num_devs 1 \
    /local/domain/0/backend/pci/$id/0/dev-0 0000:00:03.0 \
    && sed -i -e '1s/{/{ "pcidevs": [ { "dev": 3 } ],/' -e 's/"b_info": {/&"vnuma_nodes": [ { "memkb": 131072, "distances": [ 10 ], "vcpus": [ 0 ] } ],/' \
    /var/lib/xen/userdata-d.$id.*.libxl-json"#;

/// Another domain with the same UUID, at the destination.
const TWIN: &str = "sed -e 's/^name.*/name = \"twin\"\\nuuid = \"6d3a4a52-0b3c-4c8e-9a57-0000000000dd\"/' -e 's/^disk.*/disk = []/' \
    /etc/xen/vm0.cfg >/run/twin.cfg && bascule create -p /run/twin.cfg";

/// Sets the protocol of r0's connection, at both ends.
fn protocol(letter: char) -> String {
    format!("drbdsetup net-options ipv4:10.98.0.1:7788 ipv4:10.98.0.2:7788 --protocol={letter}")
}

/// The resources have other names than at the source: r0 is what r1 should be, and there is no r1.
const OTHER_NAMES: &str = "{ cat /etc/drbd.d/global_common.conf && sed 's/^resource r0/resource r9/' /etc/drbd.d/r0.res \
    && sed 's/^resource r1/resource r0/' /etc/drbd.d/r1.res; } >/run/odd.conf && drbdadm down r0 r1 && drbdadm -c /run/odd.conf up all";
const OWN_NAMES: &str =
    "[ ! -e /run/odd.conf ] || { drbdadm -c /run/odd.conf down all; drbdadm up r0 r1; rm /run/odd.conf; }";

/// The process of xenconsoled.
const CONSOLES: &str = "$(</run/xen/xenconsoled.pid)";

#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn a_domain_that_is_not_fit_to_move_is_told_all_at_once() {
    for (code, why) in NOT_HERE {
        println!("SKIPPED: preflight's {code}: {why}");
    }
    on_the_pair("unfit", |pair| {
        let done = unfit(pair);
        let at_source = format!(
            "xenstore-rm /local/domain/0/backend/pci; xl rename odd--migratedaway odd; bascule destroy odd; {}",
            protocol('C')
        );
        pair.node(1).run_for(&at_source, VERIFY_LIMIT)?;
        let at_destination = format!("kill -CONT {CONSOLES}; bascule destroy twin; {OWN_NAMES}");
        pair.node(2).run_for(&at_destination, VERIFY_LIMIT)?;
        pair.lab().wait_until_replicated(VERIFY_LIMIT)?;
        done
    });
}

pub(crate) const UNFIT: &[Awaited] = &[
    (Code::NotRunning, 1, &["odd--migratedaway", "paused", "let it run first"]),
    (Code::LeftOver, 1, &["odd--migratedaway", "bascule list"]),
    (Code::PciPassthrough, 1, &["PCI devices passed through: 1", "xl pci-detach odd--migratedaway"]),
    (Code::Vnuma, 1, &["odd--migratedaway", "Start it without vnuma="]),
    (Code::DiskFormat, 1, &["xvde", "qcow2", "qemu-img convert -O raw"]),
    (Code::DiskTwice, 1, &["xvdc", "r1/0", "Take one of the two out"]),
    (Code::SharedDiskCached, 1, &["xvdd", "/run/odd/shared.img", "phy:"]),
    (Code::DiskMissing, 1, &["xvdf", "/run/odd/gone.img", "xl cd-eject"]),
    (Code::AttachedDirectly, 1, &["r1/0", "--handover dual"]),
    (Code::NotPrimary, 1, &["r1/0", "bascule status"]),
    (Code::Protocol, 1, &["r0/0", "protocol A", "Protocol C"]),
    (Code::InClear, 1, &["odd--migratedaway", "[security] in-clear", "bascule pair"]),
    (Code::Configuration, 2, &["vnuma_nodes", "Start the domain without it"]),
    (Code::UuidTaken, 2, &["twin", "6d3a4a52-0b3c-4c8e-9a57-0000000000dd", "bascule destroy "]),
    (Code::DiskMissing, 2, &["xvdg", "/run/odd/here.img", "Put it there"]),
];
pub(crate) const NOT_ASKED: &[Awaited] = &[
    (Code::Protocol, 1, &["r0/0", "two Primaries need protocol C", "drbdadm adjust", "--handover single"]),
    (Code::DestinationUnreachable, 1, &["node2 could not be asked", "refused", "systemctl status bascule"]),
];
pub(crate) const OTHER_RESOURCES: &[Awaited] = &[
    (Code::SizeDiffers, 2, &["r0/0", "sectors", "drbdadm dump"]),
    (Code::GenerationDiffers, 2, &["r0/0", "drbdadm dump"]),
    (Code::VolumeUnknown, 2, &["r1/0", "bascule drbd up r1"]),
    (Code::StillDying, 2, &["torn down", "it goes by itself"]),
];

fn unfit(pair: &Pair) -> anyhow::Result<()> {
    let (source, destination) = (pair.node(1), pair.node(2));
    let found = |options: &str| {
        let command = format!("bascule migrate --dry-run --json {options} odd--migratedaway node2");
        Found::of(&source.run_for(&command, VERIFY_LIMIT)?)
    };
    source.ok(FILES)?;
    source.write_file("/run/odd/odd.cfg", 0o644, FILE.as_bytes())?;
    source.ok_for("bascule create -p /run/odd/odd.cfg", VERIFY_LIMIT)?;
    source.ok(IN_LIBXL)?;
    source.ok(&format!("rm /run/odd/gone.img && xl rename odd odd--migratedaway && {}", protocol('A')))?;
    destination.ok_for(TWIN, VERIFY_LIMIT)?;
    configure(pair, 2, "read-only-disks = ['/run/odd/*']")?;
    found("--handover single --shared-disk xvdd")?.all(UNFIT)?;
    // Nobody listens there.
    found("--handover dual --port 9")?.all(NOT_ASKED)?;

    // Who maps a page of a domain keeps it from going.
    source.ok(&protocol('C'))?;
    destination.ok_for(&format!("kill -STOP {CONSOLES} && bascule destroy twin"), VERIFY_LIMIT)?;
    destination.ok_for(OTHER_NAMES, VERIFY_LIMIT)?;
    pair.lab().wait_until_replicated(VERIFY_LIMIT)?;
    found("")?.all(OTHER_RESOURCES)
}

pub(crate) const LESSER_PROCESSOR: &[Awaited] = &[
    (Code::CpuFeatures, 2, &["vm0", "aes", "cpuid = ", "aes=0"]),
    (Code::CpuLeaves, 2, &["vm0", "Start the domain on this host first"]),
];

/// The leaves of XSAVE are those that Xen shows beyond 7.
#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn a_destination_whose_processor_can_less_is_recognised() {
    on_the_encrypted_pair("lesser-processor", |pair| {
        let paused = "sed 's/^disk.*/disk = []/' /etc/xen/vm0.cfg >/run/vm0.cfg && bascule create -p /run/vm0.cfg";
        pair.node(1).ok_for(paused, VERIFY_LIMIT)?;
        pair.node(2).power_off()?;
        let found = pair.node(2).power_on_with(&["-aes", "-xsave", "level=7"]).and_then(|()| {
            pair.serve(2)?;
            Found::by(pair, "")
        });
        pair.node(2).power_off()?;
        pair.node(2).power_on()?;
        pair.serve(2)?;
        pair.lab().wait_until_replicated(VERIFY_LIMIT)?;
        found?.all(LESSER_PROCESSOR)
    });
}
