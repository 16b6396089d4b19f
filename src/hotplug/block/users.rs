//! Which domain of this host has a device as its disk.

use std::fs;
use std::io;

use crate::dm::DeviceNumber;
use crate::hotplug::{Nodes, domain_name};
use crate::ids::DomId;
use crate::xen::xenstore;

/// The block backends of this host, in the kernel and in xenstore.
const SYSFS: &str = "/sys/bus/xen-backend/devices";
const XENSTORE: &str = "backend/vbd";

/// A domain whose backend has the device open, as the kernel shows it: quicker than xenstore, and it cannot be stale.
pub(super) fn direct_user(device: DeviceNumber) -> Result<Option<DomId>, io::Error> {
    let entries = match fs::read_dir(SYSFS) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries?,
    };
    let mut users = entries.flatten().filter_map(|entry| {
        let domid = served_domain(entry.file_name().to_str()?)?;
        let opened = fs::read_to_string(entry.path().join("physical_device")).ok()?;
        (DeviceNumber::from_hex(&opened) == Some(device)).then_some(domid)
    });
    Ok(users.next())
}

/// The domain in a backend's name, `vbd-DOMID-DEVID`.
fn served_domain(name: &str) -> Option<DomId> {
    let (domid, _) = name.strip_prefix("vbd-")?.split_once('-')?;
    domid.parse().ok().map(DomId)
}

/// A domain whose backend has been given the device, opened or not yet, apart from the backend at `except`. What is left
/// in xenstore of a domain that is gone does not count.
pub(super) fn user_in_xenstore(
    nodes: &dyn Nodes,
    device: DeviceNumber,
    except: &str,
) -> Result<Option<DomId>, xenstore::Error> {
    let hex = device.to_hex();
    for domain in nodes.directory(XENSTORE)? {
        for devid in nodes.directory(&format!("{XENSTORE}/{domain}"))? {
            let path = format!("{XENSTORE}/{domain}/{devid}");
            if path == except || nodes.read(&format!("{path}/physical-device"))?.as_deref() != Some(&hex) {
                continue;
            }
            let domid = domain.parse().ok().map(DomId);
            if let Some(domid) = domid.filter(|&domid| matches!(domain_name(nodes, domid), Ok(Some(_)))) {
                return Ok(Some(domid));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_s_name_tells_its_domain() {
        assert_eq!(served_domain("vbd-12-51712"), Some(DomId(12)));
        assert_eq!(served_domain("vif-12-0"), None);
        assert_eq!(served_domain("vbd-x-0"), None);
    }
}
