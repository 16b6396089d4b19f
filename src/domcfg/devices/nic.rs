//! Nics: addresses, rates, and the many names of COLO.

use serde_json::{Map, Value};

use super::{Base, Device, Field, To, device, field};
use crate::domcfg::words::NIC_TYPES;
use crate::xen::xlu;

/// A nic. An empty specification is one with all defaults.
pub(in crate::domcfg) static VIF: Device = device("nics", FIELDS);

const fn text(name: &'static str) -> Field {
    field(name, To::Text(name))
}

const FIELDS: &[Field] = &[
    field("type", To::Choice("nictype", NIC_TYPES)),
    field("mac", To::By(mac)),
    text("bridge"),
    field("gatewaydev", To::Text("gatewaydev")),
    field("netdev", To::Text("gatewaydev")),
    text("ip"),
    text("script"),
    field("backend", To::Text("backend_domname")),
    field("vifname", To::Text("ifname")),
    text("model"),
    field("rate", To::By(rate)),
    field("devid", To::Number("devid", Base::Ten, None)),
    field("mtu", To::Number("mtu", Base::Ten, Some(0))),
    field("trusted", To::Bare(|nic| trusted(nic, "True"))),
    field("untrusted", To::Bare(|nic| trusted(nic, "False"))),
    field("forwarddev", To::Text("coloft_forwarddev")),
    text("colo_sock_mirror_id"),
    text("colo_sock_mirror_ip"),
    text("colo_sock_mirror_port"),
    text("colo_sock_compare_pri_in_id"),
    text("colo_sock_compare_pri_in_ip"),
    text("colo_sock_compare_pri_in_port"),
    text("colo_sock_compare_sec_in_id"),
    text("colo_sock_compare_sec_in_ip"),
    text("colo_sock_compare_sec_in_port"),
    text("colo_sock_compare_notify_id"),
    text("colo_sock_compare_notify_ip"),
    text("colo_sock_compare_notify_port"),
    text("colo_sock_redirector0_id"),
    text("colo_sock_redirector0_ip"),
    text("colo_sock_redirector0_port"),
    text("colo_sock_redirector1_id"),
    text("colo_sock_redirector1_ip"),
    text("colo_sock_redirector1_port"),
    text("colo_sock_redirector2_id"),
    text("colo_sock_redirector2_ip"),
    text("colo_sock_redirector2_port"),
    text("colo_filter_mirror_queue"),
    text("colo_filter_mirror_outdev"),
    text("colo_filter_redirector0_queue"),
    text("colo_filter_redirector0_indev"),
    text("colo_filter_redirector0_outdev"),
    text("colo_filter_redirector1_queue"),
    text("colo_filter_redirector1_indev"),
    text("colo_filter_redirector1_outdev"),
    text("colo_compare_pri_in"),
    text("colo_compare_sec_in"),
    text("colo_compare_out"),
    text("colo_compare_notify_dev"),
    text("colo_sock_sec_redirector0_id"),
    text("colo_sock_sec_redirector0_ip"),
    text("colo_sock_sec_redirector0_port"),
    text("colo_sock_sec_redirector1_id"),
    text("colo_sock_sec_redirector1_ip"),
    text("colo_sock_sec_redirector1_port"),
    text("colo_filter_sec_redirector0_queue"),
    text("colo_filter_sec_redirector0_indev"),
    text("colo_filter_sec_redirector0_outdev"),
    text("colo_filter_sec_redirector1_queue"),
    text("colo_filter_sec_redirector1_indev"),
    text("colo_filter_sec_redirector1_outdev"),
    text("colo_filter_sec_rewriter0_queue"),
    text("colo_checkpoint_host"),
    text("colo_checkpoint_port"),
];

/// Whether the guest trusts its backend (XSA-403). A Xen that does not know this would ignore it: an error, then.
fn trusted(nic: &mut Map<String, Value>, trusted: &'static str) -> Result<(), String> {
    if cfg!(not(xen_device_trusted)) {
        return Err("trusted and untrusted are not understood by this release of Xen".to_owned());
    }
    nic.insert("trusted".to_owned(), trusted.into());
    Ok(())
}

fn rate(nic: &mut Map<String, Value>, spec: &str) -> Result<(), String> {
    let (bytes, interval_us) = xlu::Config::rate(spec).map_err(|error| error.to_string())?;
    nic.insert("rate_bytes_per_interval".to_owned(), bytes.into());
    nic.insert("rate_interval_usecs".to_owned(), interval_us.into());
    Ok(())
}

/// Six bytes in hex, as libxl writes them.
fn mac(nic: &mut Map<String, Value>, text: &str) -> Result<(), String> {
    let bytes: Option<Vec<_>> = text.split(':').map(byte).collect();
    let bytes =
        bytes.filter(|bytes| bytes.len() == 6).ok_or_else(|| format!("= {text:?} is no address of six bytes"))?;
    let mac = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":");
    nic.insert("mac".to_owned(), mac.into());
    Ok(())
}

fn byte(text: &str) -> Option<u8> {
    let hex = (1..=2).contains(&text.len()) && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    u8::from_str_radix(text, 16).ok().filter(|_| hex)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::parse;
    use super::*;

    #[test]
    fn specifications_become_libxl_s_fields() {
        let rows = [
            ("", json!({"devid": 3})),
            ("mac=0:16:3E:1:2:ff, bridge=xenbr0,", json!({"devid": 3, "mac": "00:16:3e:01:02:ff", "bridge": "xenbr0"})),
            ("devid=7,type=ioemu,model=e1000", json!({"devid": 7, "nictype": "vif_ioemu", "model": "e1000"})),
            ("vifname=g1,mtu=9000,untrusted", json!({"devid": 3, "ifname": "g1", "mtu": 9000, "trusted": "False"})),
            ("ip=10.0.0.1 10.0.0.2,script=vif-x", json!({"devid": 3, "ip": "10.0.0.1 10.0.0.2", "script": "vif-x"})),
        ];
        for (spec, expected) in rows {
            assert_eq!(parse(&VIF, spec, 3), Ok(expected), "{spec}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let rows = [
            ("mac=00:16:3e", "mac"),
            ("mac=00:16:3e:00:00:+1", "mac"),
            ("brigde=xenbr0", "did you mean bridge?"),
            ("rate=fast", "fast"),
            ("mtu=big", "mtu"),
            ("type=tap", "tap"),
            ("accel", "accel"),
            ("trusted=1", "trusted has no value"),
        ];
        for (spec, named) in rows {
            assert!(parse(&VIF, spec, 0).expect_err(spec).contains(named), "{spec}");
        }
    }
}
