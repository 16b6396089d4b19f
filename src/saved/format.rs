//! What stands before libxl's stream in a saved file, as xl writes and reads it (tools/xl/xl.h, struct `save_file_header`; Xen 4.6 and
//! newer). All numbers are in the byte order of the host, and of the domain.
//!
//! | bytes | what |
//! |---|---|
//! | 32 | the magic |
//! | 4 | `0x01020304` |
//! | 4 | flags without which it cannot be restored: bit 0, the configuration is JSON; bit 1, the stream has version 2 |
//! | 4 | flags that may be unknown; none is defined |
//! | 4 | how long the rest of the header is |
//! | 4 | how long the configuration is, if the rest has a byte at all |
//! | n | the configuration, a NUL behind it |
//! | | what xl skips: here stands our [`Note`](super::Note), or blanks in its place |

use std::io::{self, Read};
use std::num::TryFromIntError;

const MAGIC: &[u8; 32] = b"Xen saved domain, xl format\n \0 \r";
const BYTE_ORDER: u32 = 0x0102_0304;
const JSON: u32 = 1;
const STREAM_V2: u32 = 2;
/// The length of the header's fixed part.
const FIXED_BYTES: usize = 48;
/// The longest rest of a header that is read. A configuration has some thousand bytes.
const REST_BYTES_MAX: u32 = 16 << 20;

/// What the header of a saved file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The domain's configuration, libxl's JSON; none where the file has none, or one that is older than JSON.
    pub config: Option<String>,
    /// What follows it, which xl skips.
    pub(super) tail: Vec<u8>,
}

/// A file that is no saved domain, or none that can be restored here.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// It cannot be read.
    #[error("It cannot be read")]
    Read(#[source] io::Error),
    /// It ends within its header.
    #[error("It ends within its header: it was never complete")]
    Truncated,
    /// It does not begin as a saved domain does.
    #[error("It is no saved domain of xl's format")]
    Magic,
    /// The numbers in it are turned round.
    #[error("It is from a host of another byte order")]
    ByteOrder,
    /// It needs what this program does not know.
    #[error("It needs features that are not known here (flags {flags:#x}): it is from a newer xl")]
    Flags {
        /// The unknown ones.
        flags: u32,
    },
    /// Its stream has the format of Xen 4.5 and before.
    #[error("Its memory is in the format of Xen 4.5 or before, which only libxl's own converter reads: xl restore")]
    OldStream,
    /// A length in it is out of bounds.
    #[error("It announces {announced} bytes where at most {max} can be")]
    Length {
        /// What it announces.
        announced: u32,
        /// The bound.
        max: u32,
    },
    /// The configuration is no text.
    #[error("Its configuration is no text")]
    Text,
}

/// Reads a header and not a byte more: what follows is libxl's.
///
/// # Errors
/// [`FormatError`].
pub fn read(from: &mut impl Read) -> Result<Head, FormatError> {
    let mut fixed = [0; FIXED_BYTES];
    exactly(from, &mut fixed)?;
    let (magic, numbers) = fixed.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(FormatError::Magic);
    }
    let number = |nth: usize| u32_at(numbers, nth * 4).ok_or(FormatError::Truncated);
    let (order, flags, len) = (number(0)?, number(1)?, number(3)?);
    check(order, flags, len)?;
    // What is announced need not come: memory is taken for what does.
    let mut rest = Vec::new();
    from.take(len.into()).read_to_end(&mut rest).map_err(FormatError::Read)?;
    match rest.len() == len as usize {
        true => split(&rest, flags & JSON != 0),
        false => Err(FormatError::Truncated),
    }
}

fn check(order: u32, flags: u32, len: u32) -> Result<(), FormatError> {
    if order != BYTE_ORDER {
        return Err(FormatError::ByteOrder);
    }
    match flags & !(JSON | STREAM_V2) {
        0 if flags & STREAM_V2 == 0 => Err(FormatError::OldStream),
        0 if len > REST_BYTES_MAX => Err(FormatError::Length { announced: len, max: REST_BYTES_MAX }),
        0 => Ok(()),
        flags => Err(FormatError::Flags { flags }),
    }
}

/// The configuration, and what follows it.
fn split(rest: &[u8], json: bool) -> Result<Head, FormatError> {
    if rest.is_empty() {
        return Ok(Head { config: None, tail: Vec::new() });
    }
    let announced = u32_at(rest, 0).ok_or(FormatError::Truncated)?;
    let rest = &rest[4..];
    let max = u32::try_from(rest.len()).unwrap_or(u32::MAX);
    let (config, tail) = rest.split_at_checked(announced as usize).ok_or(FormatError::Length { announced, max })?;
    let config = config.strip_suffix(b"\0").unwrap_or(config);
    let text = String::from_utf8(config.to_vec()).map_err(|_| FormatError::Text)?;
    Ok(Head { config: Some(text).filter(|text| json && !text.is_empty()), tail: tail.to_vec() })
}

/// A header with this configuration, and this many blanks where the note will stand.
///
/// # Errors
/// It would be longer than a header can say.
pub(super) fn write(config: &str, blanks: usize) -> Result<Vec<u8>, TryFromIntError> {
    let config_len = config.len() + 1;
    let rest_len = 4 + config_len + blanks;
    let mut bytes = MAGIC.to_vec();
    for number in [BYTE_ORDER, JSON | STREAM_V2, 0, rest_len.try_into()?, config_len.try_into()?] {
        bytes.extend(number.to_ne_bytes());
    }
    bytes.extend(config.as_bytes());
    bytes.push(0);
    bytes.resize(bytes.len() + blanks, b' ');
    Ok(bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|four| u32::from_ne_bytes(*four))
}

fn exactly(from: &mut impl Read, bytes: &mut [u8]) -> Result<(), FormatError> {
    from.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => FormatError::Truncated,
        _ => FormatError::Read(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{"c_info": {"name": "vm0"}}"#;

    fn good() -> Vec<u8> {
        write(CONFIG, 8).expect("a header")
    }

    fn with(at: usize, number: u32) -> Vec<u8> {
        let mut bytes = good();
        bytes[at..at + 4].copy_from_slice(&number.to_ne_bytes());
        bytes
    }

    #[test]
    fn what_is_written_is_read_and_the_stream_is_left() {
        let mut bytes: &[u8] = &[good(), b"LibxlFmt".to_vec()].concat();
        let head = read(&mut bytes).expect("a header");
        assert_eq!(head, Head { config: Some(CONFIG.into()), tail: vec![b' '; 8] });
        assert_eq!(bytes, b"LibxlFmt");
    }

    /// As `xl save` of 4.17 writes it: no tail, a NUL behind the configuration.
    #[test]
    fn a_file_of_xls_is_read() {
        let mut bytes =
            b"Xen saved domain, xl format\n \0 \r\x04\x03\x02\x01\x03\0\0\0\0\0\0\0\x07\0\0\0\x03\0\0\0{}\0".to_vec();
        assert_eq!(read(&mut &*bytes).expect("a header"), Head { config: Some("{}".into()), tail: Vec::new() });
        // Without a configuration: neither flag nor bytes.
        bytes.truncate(FIXED_BYTES);
        bytes[36] = 2;
        bytes[44] = 0;
        assert_eq!(read(&mut &*bytes).expect("a header"), Head { config: None, tail: Vec::new() });
    }

    #[test]
    fn a_configuration_that_is_older_than_json_is_not_taken_for_it() {
        assert_eq!(read(&mut &*with(36, STREAM_V2)).expect("a header").config, None);
    }

    #[test]
    fn each_cut_is_noticed() {
        let bytes = good();
        for length in 0..bytes.len() {
            assert!(matches!(read(&mut &bytes[..length]), Err(FormatError::Truncated)), "{length}");
        }
    }

    #[test]
    fn what_cannot_be_restored_is_told_apart() {
        let mut other = good();
        other[0] = b'x';
        assert!(matches!(read(&mut &*other), Err(FormatError::Magic)));
        assert!(matches!(read(&mut &*with(32, 0x0403_0201)), Err(FormatError::ByteOrder)));
        assert!(matches!(read(&mut &*with(36, 0x13)), Err(FormatError::Flags { flags: 0x10 })));
        assert!(matches!(read(&mut &*with(36, JSON)), Err(FormatError::OldStream)));
        // Flags that may be unknown may be.
        assert!(read(&mut &*with(40, 0xffff_ffff)).is_ok());
    }

    #[test]
    fn lengths_are_bounded_before_anything_is_allocated() {
        assert!(matches!(read(&mut &*with(44, u32::MAX)), Err(FormatError::Length { announced: u32::MAX, .. })));
        let max = u32::try_from(CONFIG.len()).expect("short") + 1 + 8;
        for announced in [max + 1, u32::MAX] {
            let found = read(&mut &*with(48, announced));
            assert!(matches!(found, Err(FormatError::Length { max: bound, .. }) if bound == max), "{announced}");
        }
        // A rest that is too short for the length that it begins with.
        assert!(matches!(read(&mut &*with(44, 3)), Err(FormatError::Truncated)));
    }

    #[test]
    fn a_configuration_that_is_no_text_is_refused() {
        let mut bytes = good();
        bytes[60] = 0xff;
        assert!(matches!(read(&mut &*bytes), Err(FormatError::Text)));
    }
}
