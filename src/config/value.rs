//! The types of values: what of TOML each takes, and how it is written.

use std::fmt::Debug;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use toml::Spanned;
use toml::de::DeValue;

use super::{Address, PathPattern};
use crate::daemon::{Allow, Nets};
use crate::nearest::nearest;
use crate::plan::BridgeMap;

/// What was found where something else is allowed, and at which byte of the text.
pub(super) type Wrong = (usize, String);

/// A setting's value.
pub(super) trait Value: Debug {
    /// Takes what a file says, or says all that is wrong with it and stays.
    fn take(&mut self, found: &Spanned<DeValue<'_>>) -> Result<(), Vec<Wrong>>;

    /// As TOML writes it.
    fn toml(&self) -> String;

    /// As JSON has it.
    fn json(&self) -> serde_json::Value;
}

/// A number of things, `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count<const MIN: usize, const MAX: usize>(pub usize);

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What is odd, and what failed.
    Warn,
    /// What an operator would want to see.
    Info,
    /// What a developer would.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    /// All of them, the least first.
    pub const ALL: [Level; 4] = [Level::Warn, Level::Info, Level::Debug, Level::Trace];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
            Level::Trace => "trace",
        }
    }

    /// The one that says more by so many steps, up to everything.
    #[must_use]
    pub fn raised(self, steps: u8) -> Level {
        Level::ALL[(self as usize + usize::from(steps)).min(Level::ALL.len() - 1)]
    }
}

impl std::str::FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Level, String> {
        let named = Level::ALL.into_iter().find(|level| level.name() == text);
        named.ok_or_else(|| {
            let near = nearest(text, Level::ALL.iter().map(|level| level.name()));
            let near = near.map(|near| format!(" (did you mean {near}?)")).unwrap_or_default();
            format!("{text:?} is no level: it is warn, info, debug or trace{near}")
        })
    }
}

impl Value for bool {
    fn take(&mut self, found: &Spanned<DeValue<'_>>) -> Result<(), Vec<Wrong>> {
        *self = found.get_ref().as_bool().ok_or_else(|| not(found, "true or false"))?;
        Ok(())
    }

    fn toml(&self) -> String {
        self.to_string()
    }

    fn json(&self) -> serde_json::Value {
        json!(self)
    }
}

impl Value for u16 {
    fn take(&mut self, found: &Spanned<DeValue<'_>>) -> Result<(), Vec<Wrong>> {
        let port = integer(found).and_then(|number| u16::try_from(number).ok()).filter(|port| *port != 0);
        *self = port.ok_or_else(|| not(found, "a whole number from 1 to 65535"))?;
        Ok(())
    }

    fn toml(&self) -> String {
        self.to_string()
    }

    fn json(&self) -> serde_json::Value {
        json!(self)
    }
}

impl<const MIN: usize, const MAX: usize> Value for Count<MIN, MAX> {
    fn take(&mut self, found: &Spanned<DeValue<'_>>) -> Result<(), Vec<Wrong>> {
        let count = integer(found).and_then(|number| usize::try_from(number).ok());
        let count = count.filter(|count| (MIN..=MAX).contains(count));
        self.0 = count.ok_or_else(|| not(found, &format!("a whole number from {MIN} to {MAX}")))?;
        Ok(())
    }

    fn toml(&self) -> String {
        self.0.to_string()
    }

    fn json(&self) -> serde_json::Value {
        json!(self.0)
    }
}

/// Seconds.
impl Value for Duration {
    fn take(&mut self, found: &Spanned<DeValue<'_>>) -> Result<(), Vec<Wrong>> {
        let seconds = match found.get_ref() {
            DeValue::Float(float) => float.as_str().parse().ok(),
            _ => integer(found).and_then(|number| u32::try_from(number).ok()).map(f64::from),
        };
        let bound = seconds.and_then(crate::timeouts::bound);
        *self = bound.ok_or_else(|| not(found, "a number of seconds from 0.1 to 86400"))?;
        Ok(())
    }

    fn toml(&self) -> String {
        self.as_secs_f64().to_string()
    }

    fn json(&self) -> serde_json::Value {
        json!(self.as_secs_f64())
    }
}

impl Value for PathBuf {
    fn take(&mut self, found: &Spanned<DeValue<'_>>) -> Result<(), Vec<Wrong>> {
        let path = found.get_ref().as_str().filter(|text| text.starts_with('/') && !text.contains('\0'));
        *self = path.ok_or_else(|| not(found, "a path that begins with /"))?.into();
        Ok(())
    }

    fn toml(&self) -> String {
        quoted(&self.to_string_lossy())
    }

    fn json(&self) -> serde_json::Value {
        json!(self.to_string_lossy())
    }
}

/// No path is an empty text.
impl Value for Option<PathBuf> {
    fn take(&mut self, found: &Spanned<DeValue<'_>>) -> Result<(), Vec<Wrong>> {
        if found.get_ref().as_str() == Some("") {
            *self = None;
            return Ok(());
        }
        let mut path = PathBuf::new();
        path.take(found)?;
        *self = Some(path);
        Ok(())
    }

    fn toml(&self) -> String {
        self.as_ref().map_or_else(|| quoted(""), Value::toml)
    }

    fn json(&self) -> serde_json::Value {
        self.as_ref().map_or(serde_json::Value::Null, Value::json)
    }
}

impl Value for Level {
    fn take(&mut self, found: &Spanned<DeValue<'_>>) -> Result<(), Vec<Wrong>> {
        let text = found.get_ref().as_str().ok_or_else(|| not(found, "\"warn\", \"info\", \"debug\" or \"trace\""))?;
        *self = text.parse().map_err(|why| vec![(found.span().start, why)])?;
        Ok(())
    }

    fn toml(&self) -> String {
        quoted(self.name())
    }

    fn json(&self) -> serde_json::Value {
        json!(self.name())
    }
}

/// Lists of what is written as it is read.
macro_rules! lists {
    ($($entry:ty => $allowed:literal),*) => {
        $(impl Value for Vec<$entry> {
            fn take(&mut self, found: &Spanned<DeValue<'_>>) -> Result<(), Vec<Wrong>> {
                *self = list(found, $allowed, str::parse)?;
                Ok(())
            }

            fn toml(&self) -> String {
                array(self)
            }

            fn json(&self) -> serde_json::Value {
                json!(self.iter().map(ToString::to_string).collect::<Vec<_>>())
            }
        })*
    };
}

lists! {
    Address => "a list of addresses and names of interfaces",
    PathPattern => "a list of paths",
    BridgeMap => "a list of OLD=NEW"
}

impl Value for Vec<PathBuf> {
    fn take(&mut self, found: &Spanned<DeValue<'_>>) -> Result<(), Vec<Wrong>> {
        let path = |text: &str| match text.starts_with('/') && !text.contains('\0') {
            true => Ok(PathBuf::from(text)),
            false => Err(format!("{:?} is not a path that begins with /", shortened(text))),
        };
        *self = list(found, "a list of directories", path)?;
        Ok(())
    }

    fn toml(&self) -> String {
        array(&self.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>())
    }

    fn json(&self) -> serde_json::Value {
        json!(self.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>())
    }
}

impl Value for Vec<String> {
    fn take(&mut self, found: &Spanned<DeValue<'_>>) -> Result<(), Vec<Wrong>> {
        let name = |text: &str| match !text.is_empty() && !text.contains('\0') {
            true => Ok(text.to_owned()),
            false => Err(format!("{:?} is not a name", shortened(text))),
        };
        *self = list(found, "a list of names", name)?;
        Ok(())
    }

    fn toml(&self) -> String {
        array(self)
    }

    fn json(&self) -> serde_json::Value {
        json!(self)
    }
}

impl Value for Allow {
    fn take(&mut self, found: &Spanned<DeValue<'_>>) -> Result<(), Vec<Wrong>> {
        *self = Allow(list(found, "a list of addresses, networks, names and /regular expressions/", str::parse)?);
        Ok(())
    }

    fn toml(&self) -> String {
        array(&self.0)
    }

    fn json(&self) -> serde_json::Value {
        json!(self.0.iter().map(ToString::to_string).collect::<Vec<_>>())
    }
}

impl Value for Nets {
    fn take(&mut self, found: &Spanned<DeValue<'_>>) -> Result<(), Vec<Wrong>> {
        *self = Nets(list(found, "a list of addresses and networks", Nets::entry)?);
        Ok(())
    }

    fn toml(&self) -> String {
        array(&self.texts())
    }

    fn json(&self) -> serde_json::Value {
        json!(self.texts())
    }
}

fn integer(found: &Spanned<DeValue<'_>>) -> Option<i64> {
    let integer = found.get_ref().as_integer()?;
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// A list of texts, each of which `read` understands.
fn list<T>(
    found: &Spanned<DeValue<'_>>,
    allowed: &str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, Vec<Wrong>> {
    let array = found.get_ref().as_array().ok_or_else(|| not(found, allowed))?;
    let (mut values, mut wrong) = (Vec::new(), Vec::new());
    for entry in array.iter() {
        match entry.get_ref().as_str().map(&read) {
            Some(Ok(value)) => values.push(value),
            Some(Err(why)) => wrong.push((entry.span().start, why)),
            None => wrong.extend(not(entry, &format!("a text in {allowed}"))),
        }
    }
    if wrong.is_empty() { Ok(values) } else { Err(wrong) }
}

fn not(found: &Spanned<DeValue<'_>>, allowed: &str) -> Vec<Wrong> {
    let what = match found.get_ref() {
        DeValue::String(text) => format!("{:?}", shortened(text)),
        DeValue::Integer(number) => number.as_str().to_owned(),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(truth) => truth.to_string(),
        other => format!("this {}", other.type_str()),
    };
    vec![(found.span().start, format!("{what} is not {allowed}"))]
}

/// The longest text that is repeated in an error, in characters.
const REPEATED_MAX: usize = 80;

pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(REPEATED_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// A text as TOML writes it.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn array<T: ToString>(values: &[T]) -> String {
    let texts: Vec<String> = values.iter().map(|value| quoted(&value.to_string())).collect();
    format!("[{}]", texts.join(", "))
}
