//! What the destination's hypervisor and processor must have for a domain: memory, leaves and features of CPUID, no older Xen.

use super::Code;
use crate::cpu::{Feature, Viewer};
use crate::host::Host;
use crate::ids::DomId;
use crate::protocol::{Finding, Offer};
use crate::toolstack::Error;
use crate::xen::cpuid::Cpuid;

/// What dom0 should keep when it is made smaller, in KiB.
const DOM0_MIN_KIB: u64 = 512 << 10;

/// Xen promises migrations to the same version or a newer one.
pub(super) fn release(host: &Host<'_>, offer: &Offer) -> Result<Option<Finding>, Error> {
    let found = older(host.toolstack.release()?, offer.xen);
    let remedy = "Xen's own tests go to the same version or a newer one: upgrade this host";
    Ok(found.map(|found| host.warning(Code::XenOlder, found, remedy)))
}

fn older(here: Option<(i32, i32)>, there: Option<(i32, i32)>) -> Option<String> {
    let (here, there) = (here?, there?);
    (here < there).then(|| format!("Xen {}.{} here is older than the source's {}.{}", here.0, here.1, there.0, there.1))
}

/// Whether so much memory is free, claims of domains that are being made taken off.
pub(super) fn memory(host: &Host<'_>, needed_kib: u64) -> Result<Option<Finding>, Error> {
    let free_kib = host.toolstack.free_memory_kib()?;
    if free_kib >= needed_kib {
        return Ok(None);
    }
    let dom0_kib = host.toolstack.domain(DomId(0))?.map_or(0, |dom0| dom0.memory_kib);
    let found = format!("{} MiB of memory are free, {} MiB are needed", free_kib >> 10, mib(needed_kib));
    Ok(Some(host.error(Code::Memory, found, make_room(needed_kib - free_kib, dom0_kib))))
}

/// Nobody makes dom0 smaller by itself, but it can be done.
fn make_room(missing_kib: u64, dom0_kib: u64) -> String {
    match dom0_kib.checked_sub(missing_kib) {
        Some(left) if left >= DOM0_MIN_KIB => {
            format!(
                "Shut a domain down, or make dom0 smaller, which has {} MiB: xl mem-set 0 {}m",
                mib(dom0_kib),
                left >> 10
            )
        }
        _ => format!("Shut a domain down: {} MiB more are needed, and dom0 cannot spare them", mib(missing_kib)),
    }
}

fn mib(kib: u64) -> u64 {
    kib.div_ceil(1 << 10)
}

/// What the domain was given of the processor, and cannot have here.
pub(super) fn cpu(host: &Host<'_>, offer: &Offer, kind: &str) -> Result<Vec<Finding>, Error> {
    let Some(domain) = &offer.cpu else { return Ok(Vec::new()) };
    let Some(here) = host.toolstack.cpu_policy(Viewer::any(kind))? else { return Ok(Vec::new()) };
    let mut findings = Vec::new();
    if domain.has_more_leaves_than(&here) {
        let found =
            format!("{} sees more CPUID leaves than the hypervisor gives here: it would refuse the domain", offer.name);
        let remedy = "Start the domain on this host first: then it can move both ways; or bring the hosts' Xen and firmware to one version";
        findings.push(host.error(Code::CpuLeaves, found, remedy));
    }
    let lacking = domain.lacking(&here);
    if !lacking.is_empty() {
        let names: Vec<String> = lacking.iter().map(ToString::to_string).collect();
        let found = format!("{} was given features that this host's processor lacks: {}", offer.name, names.join(", "));
        findings.push(host.error(Code::CpuFeatures, found, without(&lacking)));
    }
    Ok(findings)
}

/// What a domain's file has to say so that the domain is not given these.
fn without(features: &[Feature]) -> String {
    let known = |name: &&str| Cpuid::new().flag(&format!("{name}=0")).is_ok();
    let flags: Vec<String> =
        features.iter().filter_map(|feature| feature.name()).filter(known).map(|name| format!("{name}=0")).collect();
    match flags.as_slice() {
        [] => "Start the domain on this host first: then it can move both ways".to_owned(),
        flags => format!("Start the domain anew, its file saying: cpuid = \"host,{}\"", flags.join(",")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Policy;

    #[test]
    fn releases_are_compared_as_numbers() {
        let found = older(Some((4, 9)), Some((4, 17)));
        assert_eq!(found.as_deref(), Some("Xen 4.9 here is older than the source's 4.17"));
        for (here, there) in [(Some((4, 17)), Some((4, 17))), (Some((5, 0)), Some((4, 17))), (None, Some((4, 17)))] {
            assert_eq!(older(here, there), None);
        }
    }

    #[test]
    fn room_is_made_where_dom0_can_spare_it() {
        let with = make_room(100 << 10, 1024 << 10);
        assert!(with.ends_with("which has 1024 MiB: xl mem-set 0 924m"), "{with}");
        for (missing, dom0) in [(600 << 10, 1024 << 10), (2048 << 10, 1024 << 10), (1, 0)] {
            assert!(make_room(missing, dom0).contains("cannot spare"), "{missing} {dom0}");
        }
    }

    #[test]
    fn the_file_is_told_what_to_say() {
        let lacking =
            |features: &[u32]| Policy { features: features.to_vec(), ..Policy::default() }.lacking(&Policy::default());
        assert!(without(&lacking(&[0, 1 << 28 | 1 << 25])).ends_with(r#"cpuid = "host,aes=0,avx=0""#));
        assert!(without(&lacking(&[1 << 10])).contains("on this host first"));
    }
}
