//! Bridges that have another name at the destination.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;

/// What is written as OLD=NEW: a bridge of the source, and the one that stands for it at the destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeMap {
    /// Its name at the source.
    pub old: String,
    /// Its name at the destination.
    pub new: String,
}

/// The longest name of a bridge, in bytes (if.h, IFNAMSIZ without the NUL).
const NAME_LEN_MAX: usize = 15;

impl FromStr for BridgeMap {
    type Err = String;

    fn from_str(text: &str) -> Result<BridgeMap, String> {
        let is_name = |name: &str| {
            let graphic = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'=');
            (1..=NAME_LEN_MAX).contains(&name.len()) && name.bytes().all(graphic) && !matches!(name, "." | "..")
        };
        match text.split_once('=') {
            Some((old, new)) if is_name(old) && is_name(new) => Ok(BridgeMap { old: old.into(), new: new.into() }),
            _ => Err(format!("{text:?} is not OLD=NEW, two names of bridges such as xenbr0=br-lan")),
        }
    }
}

impl fmt::Display for BridgeMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.old, self.new)
    }
}

/// The configuration with its nics on other bridges, and the indices of those that were moved. `settled`: nics that are to stay as they are,
/// for the other end's administrator has spoken.
///
/// # Errors
/// The text is no JSON.
pub fn map_bridges(
    config: &str,
    maps: &[BridgeMap],
    settled: &[usize],
) -> Result<(String, Vec<usize>), serde_json::Error> {
    let mut value: Value = serde_json::from_str(config)?;
    let nics = value.get_mut("nics").and_then(Value::as_array_mut).into_iter().flatten().enumerate();
    let mut moved = Vec::new();
    for (index, nic) in nics.filter(|(index, _)| !settled.contains(index)) {
        let Some(bridge) = nic.get_mut("bridge") else { continue };
        if let Some(map) = maps.iter().find(|map| bridge.as_str() == Some(&map.old)) {
            *bridge = map.new.clone().into();
            moved.push(index);
        }
    }
    Ok((serde_json::to_string(&value)?, moved))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maps(texts: &[&str]) -> Vec<BridgeMap> {
        texts.iter().map(|text| text.parse().expect("OLD=NEW")).collect()
    }

    #[test]
    fn a_map_is_two_names_of_bridges() {
        assert_eq!(maps(&["xenbr0=br-lan"])[0].to_string(), "xenbr0=br-lan");
        for wrong in ["", "xenbr0", "=b", "a=", "a=b=c", "a b=c", "../x=y", "a=..", "a=0123456789abcdef"] {
            assert!(wrong.parse::<BridgeMap>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn each_nic_is_moved_once_and_what_is_settled_stays() {
        let config = r#"{"nics": [{"bridge": "a"}, {"bridge": "b"}, {"devid": 2}, {"bridge": "a"}]}"#;
        let (config, settled) = map_bridges(config, &maps(&["a=b"]), &[]).expect("JSON");
        assert_eq!(settled, [0, 3]);
        let (config, moved) = map_bridges(&config, &maps(&["b=c"]), &settled).expect("JSON");
        assert_eq!(moved, [1]);
        let value: Value = serde_json::from_str(&config).expect("JSON");
        let bridges: Vec<_> = (0..4).map(|nic| value["nics"][nic]["bridge"].as_str()).collect();
        assert_eq!(bridges, [Some("b"), Some("c"), None, Some("b")]);
        assert_eq!(map_bridges("{}", &maps(&["a=b"]), &[]).expect("JSON"), ("{}".into(), vec![]));
    }
}
