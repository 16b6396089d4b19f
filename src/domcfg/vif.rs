//! One nic's specification (docs/man/xl-network-configuration.5): `key=value` pairs with commas between them. No library
//! parses it; xl does so in tools/xl/xl_parse.c, parse_nic_config.

use serde_json::{Map, Value};

use crate::xen::xlu;

/// Keys whose value is taken as it is, with libxl's name for them.
const TEXTS: [(&str, &str); 8] = [
    ("bridge", "bridge"),
    ("script", "script"),
    ("vifname", "ifname"),
    ("model", "model"),
    ("ip", "ip"),
    ("backend", "backend_domname"),
    ("gatewaydev", "gatewaydev"),
    ("netdev", "gatewaydev"),
];

/// The nic as libxl's JSON; `devid` is its place in the list. An empty specification is a nic with all defaults.
pub(super) fn parse(spec: &str, devid: usize) -> Result<Value, String> {
    let mut nic = Map::from_iter([("devid".to_owned(), Value::from(devid))]);
    for token in spec.split(',').map(str::trim).filter(|token| !token.is_empty()) {
        match token.split_once('=') {
            Some((key, value)) => set(&mut nic, key, value)?,
            None => flag(&mut nic, token)?,
        }
    }
    Ok(nic.into())
}

fn set(nic: &mut Map<String, Value>, key: &str, value: &str) -> Result<(), String> {
    if let Some((_, name)) = TEXTS.iter().find(|(known, _)| *known == key) {
        nic.insert((*name).to_owned(), value.into());
        return Ok(());
    }
    let (name, value): (_, Value) = match key {
        "mac" => ("mac", mac(value)?.into()),
        "type" => ("nictype", kind(value)?.into()),
        "mtu" => ("mtu", number(key, value)?.into()),
        "devid" => ("devid", number(key, value)?.into()),
        "rate" => return rate(nic, value),
        _ => return Err(format!("{key} is not understood")),
    };
    nic.insert(name.to_owned(), value);
    Ok(())
}

/// Whether the guest trusts its backend (XSA-403). A Xen that does not know this would ignore it: an error, then.
fn flag(nic: &mut Map<String, Value>, token: &str) -> Result<(), String> {
    let trusted = match token {
        "trusted" => "True",
        "untrusted" => "False",
        _ => return Err(format!("{token} is not understood")),
    };
    if cfg!(not(xen_device_trusted)) {
        return Err(format!("{token} is not understood by this release of Xen"));
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
fn mac(text: &str) -> Result<String, String> {
    let bytes: Option<Vec<_>> = text.split(':').map(byte).collect();
    match bytes {
        Some(bytes) if bytes.len() == 6 => {
            Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":"))
        }
        _ => Err(format!("mac {text:?} is no address of six bytes")),
    }
}

fn byte(text: &str) -> Option<u8> {
    let hex = (1..=2).contains(&text.len()) && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    u8::from_str_radix(text, 16).ok().filter(|_| hex)
}

fn kind(text: &str) -> Result<&'static str, String> {
    match text {
        "vif" => Ok("vif"),
        "ioemu" => Ok("vif_ioemu"),
        _ => Err(format!("type {text:?} is neither vif nor ioemu")),
    }
}

/// MTUs and numbers of devices: libxl keeps them in an int.
fn number(key: &str, text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| format!("{key} {text:?} is no number from 0 to 65535"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
            assert_eq!(parse(spec, 3), Ok(expected), "{spec}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let rows = [
            ("mac=00:16:3e", "mac"),
            ("mac=00:16:3e:00:00:+1", "mac"),
            ("brigde=xenbr0", "brigde"),
            ("rate=fast", "fast"),
            ("mtu=big", "mtu"),
            ("type=tap", "tap"),
            ("accel", "accel"),
        ];
        for (spec, named) in rows {
            assert!(parse(spec, 0).expect_err(spec).contains(named), "{spec}");
        }
    }
}
