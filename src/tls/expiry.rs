//! Until when certificates are good. Only that is read of them here: what else they say is rustls' to judge.

use std::path::Path;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::certificates::certificates;
use super::{Error, unusable};

// Tags of DER (X.690) that stand before and in a certificate's validity (RFC 5280, 4.1).
const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// When the first of the certificates in a PEM file expires.
///
/// # Errors
/// [`Error::File`]: it cannot be read, or has a certificate that says no such time.
pub(crate) fn of(file: &Path) -> Result<Timestamp, Error> {
    let times = certificates(file)?.into_iter().map(|certificate| not_after(&certificate));
    let first = times.collect::<Option<Vec<_>>>().and_then(|times| times.into_iter().min());
    first.ok_or_else(|| unusable(file, "a certificate in it does not say until when it is good"))
}

/// The end of a certificate's validity.
fn not_after(certificate: &[u8]) -> Option<Timestamp> {
    let (_, certificate, _) = element(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (_, mut rest, _) = element(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
    // The version may be missing; the serial number, the algorithm and the issuer stand before the validity.
    for tag in [VERSION, INTEGER, SEQUENCE, SEQUENCE] {
        match element(rest)? {
            (found, _, after) if found == tag => rest = after,
            _ if tag == VERSION => {}
            _ => return None,
        }
    }
    let (_, validity, _) = element(rest).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (_, _, after) = element(validity)?;
    let (tag, text, _) = element(after)?;
    time(tag, std::str::from_utf8(text).ok()?)
}

/// The first element: its tag, its content, and what stands behind it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, short], rest) = der.split_first_chunk::<2>()?;
    let (len, rest) = match short {
        0..=0x7f => (usize::from(short), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(short & 0x7f))?;
            (bytes.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(len)?;
    Some((tag, content, rest))
}

/// `YYMMDDHHMMSSZ`, of 1950 to 2049, or the same with the whole year (RFC 5280, 4.1.2.5).
fn time(tag: u8, text: &str) -> Option<Timestamp> {
    let text = match tag {
        UTC_TIME if text.get(..2)? < "50" => format!("20{text}"),
        UTC_TIME => format!("19{text}"),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let time = DateTime::strptime("%Y%m%d%H%M%SZ", text).ok()?;
    time.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_text(tag: u8, text: &str) -> Option<String> {
        time(tag, text).map(|time| time.to_string())
    }

    #[test]
    fn both_forms_of_a_time_are_read() {
        assert_eq!(of_text(UTC_TIME, "261127211630Z").as_deref(), Some("2026-11-27T21:16:30Z"));
        assert_eq!(of_text(UTC_TIME, "991231235959Z").as_deref(), Some("1999-12-31T23:59:59Z"));
        assert_eq!(of_text(GENERALIZED_TIME, "20550101000000Z").as_deref(), Some("2055-01-01T00:00:00Z"));
        for wrong in ["", "2", "261127211630", "26112721163äZ"] {
            assert_eq!(of_text(UTC_TIME, wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_certificate_says_when_it_ends_and_a_broken_one_nothing() {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut wanted = rcgen::CertificateParams::new(["node1".to_owned()]).expect("parameters");
        wanted.not_after = rcgen::date_time_ymd(2031, 5, 7);
        let certificate = wanted.self_signed(&key).expect("a certificate");
        let end = not_after(certificate.der()).map(|end| end.to_string());
        assert_eq!(end.as_deref(), Some("2031-05-07T00:00:00Z"));
        let der = certificate.der().to_vec();
        (0..der.len()).for_each(|len| assert_eq!(not_after(&der[..len]), None, "{len} bytes"));
    }
}
