//! One line of a journal: `TIME KEYWORD JSON CHECKSUM`, separated by single spaces.
//!
//! TIME is RFC 3339 in UTC to the microsecond; JSON is an object, `{}` where a record has no more to say, and holds no
//! newline; CHECKSUM is the CRC-32 (IEEE 802.3) of everything before the space in front of it, as eight hexadecimal digits.

use std::path::Path;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::error::Error;
use super::record::{Head, Record};
use super::{Entry, RECORD_LEN_MAX};

/// The keyword of the head.
const HEAD: &str = "open";
/// Where [`Record`] has its keyword as JSON.
const TAG: &str = "record";

/// Why a record has no line.
#[derive(Debug)]
pub(super) enum Unwritten {
    Json(serde_json::Error),
    TooLong(usize),
}

impl Unwritten {
    /// The same with the journal's name.
    pub(super) fn at(self, path: &Path) -> Error {
        let path = path.to_owned();
        match self {
            Self::Json(source) => Error::Unwritable { path, source },
            Self::TooLong(len) => Error::TooLong { path, len },
        }
    }
}

impl From<serde_json::Error> for Unwritten {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}

/// A line that is as it was written.
#[derive(Debug)]
pub(super) struct Line<'a> {
    at: Timestamp,
    keyword: &'a str,
    payload: &'a str,
}

/// What is wrong with a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// It is not as it was written, or not to its end.
    NotWhole,
    /// It is as it was written, and says nothing that we know.
    Unknown(&'static str),
    /// A head of a newer format.
    Future(u32),
}

/// Now, as precisely as a line can say it.
pub(super) fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}

/// The head's line, with its newline.
pub(super) fn write_head(at: Timestamp, head: &Head) -> Result<String, Unwritten> {
    write(at, HEAD, &serde_json::to_string(head)?)
}

/// A record's line, with its newline.
pub(super) fn write_entry(entry: &Entry) -> Result<String, Unwritten> {
    let mut payload = serde_json::to_value(&entry.record)?;
    payload.as_object_mut().map(|fields| fields.remove(TAG));
    write(entry.at, entry.record.keyword(), &payload.to_string())
}

fn write(at: Timestamp, keyword: &str, payload: &str) -> Result<String, Unwritten> {
    let text = format!("{at:.6} {keyword} {payload}");
    let line = format!("{text} {:08x}\n", crc32fast::hash(text.as_bytes()));
    if line.len() > RECORD_LEN_MAX {
        return Err(Unwritten::TooLong(line.len()));
    }
    Ok(line)
}

impl<'a> Line<'a> {
    /// Reads a line, its newline included.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, Flaw> {
        let text = checked(bytes).ok_or(Flaw::NotWhole)?;
        let mut parts = text.splitn(3, ' ');
        let (Some(at), Some(keyword), Some(payload)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(Flaw::Unknown("it has too few parts"));
        };
        let at = at.parse().map_err(|_| Flaw::Unknown("its time is none"))?;
        Ok(Self { at, keyword, payload })
    }

    /// The head that it is.
    pub(super) fn head(&self) -> Result<(Timestamp, Head), Flaw> {
        if self.keyword != HEAD {
            return Err(Flaw::Unknown("it is not a head"));
        }
        let fields = self.fields()?;
        let format = fields.get("format").and_then(Value::as_u64).and_then(|format| u32::try_from(format).ok());
        if let Some(format) = format.filter(|format| *format > super::FORMAT) {
            return Err(Flaw::Future(format));
        }
        let head =
            serde_json::from_value(Value::Object(fields)).map_err(|_| Flaw::Unknown("its head lacks a field"))?;
        Ok((self.at, head))
    }

    /// The record that it is.
    pub(super) fn entry(&self) -> Result<Entry, Flaw> {
        let mut fields = self.fields()?;
        fields.insert(TAG.into(), self.keyword.into());
        let record: Record =
            serde_json::from_value(Value::Object(fields)).map_err(|_| Flaw::Unknown("its record is not known"))?;
        Ok(Entry { at: self.at, record })
    }

    fn fields(&self) -> Result<Map<String, Value>, Flaw> {
        serde_json::from_str(self.payload).map_err(|_| Flaw::Unknown("its payload is not an object"))
    }
}

/// The text of a line before its checksum, if that is right.
fn checked(bytes: &[u8]) -> Option<&str> {
    let line = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
    let (text, digits) = line.rsplit_once(' ')?;
    (digits == format!("{:08x}", crc32fast::hash(text.as_bytes()))).then_some(text)
}
