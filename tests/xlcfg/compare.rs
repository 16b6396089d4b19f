//! Our JSON against xl's. Both the unit test of `domcfg`, on what xl printed once, and the test in the lab, on what it prints
//! there, include this file.
//!
//! | folder | xl | bascule |
//! |---|---|---|
//! | `corpus` | printed the `.json` beside it | the same |
//! | `refused` | refuses | refuses |
//! | `stricter` | takes it for something else than what is written, as its first line says | refuses |
//! | `differs` | printed the `.json` beside it | something else at the places of its second line, for the reason in its first |

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

/// A file of one of the folders.
#[derive(Debug)]
pub(crate) struct Case {
    /// Folder and name, without the ending.
    pub(crate) name: String,
    pub(crate) text: String,
}

/// All files of a folder, by name.
pub(crate) fn cases(folder: &str) -> Vec<Case> {
    let entries = fs::read_dir(root().join(folder)).expect("the folder is in the repository");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a name").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "cfg"));
    paths.sort();
    let case = |path: PathBuf| Case {
        name: format!("{folder}/{}", path.file_stem().and_then(|stem| stem.to_str()).expect("a plain name")),
        text: fs::read_to_string(&path).expect("a text"),
    };
    paths.into_iter().map(case).collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/xlcfg")
}

impl Case {
    /// Where the two are known to differ.
    pub(crate) fn expected_differences(&self) -> Vec<String> {
        let places = self.text.lines().find_map(|line| line.strip_prefix("# Differs: "));
        places.map(|places| places.split(' ').map(str::to_owned).collect()).unwrap_or_default()
    }
}

/// The places where two configurations differ, each with both values.
pub(crate) fn differences(ours: &Value, xl: &Value) -> BTreeMap<String, String> {
    let (mut ours, mut xl) = (leaves(ours), leaves(xl));
    xl.retain(|place, value| ours.get(place) != Some(value) || ours.remove(place).is_none());
    let none = "nothing".to_owned();
    let places = ours.keys().chain(xl.keys());
    let words =
        |place: &String| format!("we say {}, xl {}", ours.get(place).unwrap_or(&none), xl.get(place).unwrap_or(&none));
    places.map(|place| (place.clone(), words(place))).collect()
}

/// Every value by its place; a list of numbers or words is one value, an object without any is none, as libxl leaves some of
/// these out. An action at libxl's default is not written by it, and a generation ID is random.
fn leaves(value: &Value) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    gather(value, String::new(), &mut found);
    found.retain(|place, value| !(place.starts_with("on_") && value == "\"destroy\""));
    if let Some(random) = found.get_mut("b_info/type.hvm/ms_vm_genid") {
        *random = format!("{} numbers", random.split(',').count());
    }
    found
}

fn gather(value: &Value, place: String, found: &mut BTreeMap<String, String>) {
    let below = |name: &str| if place.is_empty() { name.to_owned() } else { format!("{place}/{name}") };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| gather(value, below(name), found)),
        Value::Array(values) if values.iter().any(Value::is_object) => {
            found.insert(below("count"), values.len().to_string());
            values.iter().enumerate().for_each(|(index, value)| gather(value, below(&index.to_string()), found));
        }
        leaf => drop(found.insert(place, leaf.to_string())),
    }
}
