//! What single kinds of device have beside plain fields.

use serde_json::{Map, Value, json};

use crate::domcfg::general::parse_uuid;

/// There is nothing that has to hold.
#[expect(clippy::unnecessary_wraps, reason = "the rules of other devices can fail")]
pub(super) fn nothing(_: &mut Map<String, Value>) -> Result<(), String> {
    Ok(())
}

/// Each of these has to be there. The names are libxl's; where the file has another, it is said instead.
pub(super) fn needs(json: &Map<String, Value>, names: &[&'static str]) -> Result<(), String> {
    let stored = |name: &'static str| if name == "backend" { "backend_domname" } else { name };
    let missing: Vec<_> = names.iter().filter(|name| !json.contains_key(stored(name))).copied().collect();
    if missing.is_empty() {
        return Ok(());
    }
    let named = if missing == ["type.hostdev"] { "hostbus and hostaddr".to_owned() } else { missing.join(", ") };
    Err(format!("{named} is missing"))
}

pub(super) fn uuid(json: &mut Map<String, Value>, text: &str) -> Result<(), String> {
    let uuid = parse_uuid(text).ok_or_else(|| format!("= {text:?} is no UUID"))?;
    json.insert("uuid".to_owned(), uuid.hyphenated().to_string().into());
    Ok(())
}

/// `id0:1920x1080;id1:800x600`.
pub(super) fn connectors(json: &mut Map<String, Value>, text: &str) -> Result<(), String> {
    let parsed: Option<Vec<Value>> = text.split(';').filter(|part| !part.is_empty()).map(connector).collect();
    let parsed = parsed.ok_or_else(|| format!("= {text:?} is not ID:WIDTHxHEIGHT with semicolons between them"))?;
    if !parsed.is_empty() {
        json.insert("connectors".to_owned(), parsed.into());
    }
    Ok(())
}

fn connector(text: &str) -> Option<Value> {
    let (id, size) = text.split_once(':')?;
    let (width, height) = size.split_once('x')?;
    Some(json!({ "unique_id": id, "width": width.parse::<u32>().ok()?, "height": height.parse::<u32>().ok()? }))
}

/// A channel ends in a terminal or in a socket of the host's.
pub(super) fn connection(json: &mut Map<String, Value>) -> Result<(), String> {
    let (connection, path) = (json.remove("connection"), json.remove("path"));
    match (connection.as_ref().and_then(Value::as_str), path) {
        (Some("socket"), Some(path)) => drop(json.insert("connection.socket".to_owned(), json!({ "path": path }))),
        (Some("socket"), None) => return Err("connection=socket needs path=PATH".to_owned()),
        (Some(_), _) => drop(json.insert("connection.pty".to_owned(), json!({}))),
        (None, _) => return Err("connection is missing: it is pty or socket".to_owned()),
    }
    Ok(())
}

/// Who provides a keyboard has to be said. A size makes it a touch screen, and a touch screen has a size.
pub(super) fn touch(json: &mut Map<String, Value>) -> Result<(), String> {
    if !json.contains_key("backend_type") {
        return Err("backend-type is missing: it is qemu or linux".to_owned());
    }
    let sizes = ["multi_touch_width", "multi_touch_height", "multi_touch_num_contacts"];
    if sizes.iter().any(|size| json.contains_key(*size)) {
        json.insert("feature_multi_touch".to_owned(), true.into());
    } else if json.contains_key("feature_multi_touch") {
        return Err("feature-multi-touch needs multi-touch-width, -height and -num-contacts".to_owned());
    }
    Ok(())
}
