//! The code that people carry from one host to the other.

use std::str::FromStr;

use data_encoding::{Encoding, Specification};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};

use crate::tls::Fingerprint;
use crate::toolstack::Error;

/// Of the fingerprint: who would be taken for this host must find another key of the same beginning, 2^80 attempts.
const KEY_LEN: usize = 10;
/// Of the secret: three attempts at 2^40.
const SECRET_LEN: usize = 5;
/// Characters between two hyphens.
const GROUP: usize = 4;

/// Six groups of four letters and digits.
#[derive(Clone, PartialEq, Eq)]
pub struct Code {
    key: [u8; KEY_LEN],
    secret: [u8; SECRET_LEN],
}

impl Code {
    /// A new code of the host with this key.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new(own: &Fingerprint) -> Result<Code, Error> {
        let (mut key, mut secret) = ([0; KEY_LEN], [0; SECRET_LEN]);
        key.copy_from_slice(&own.0[..KEY_LEN]);
        SystemRandom::new().fill(&mut secret).map_err(|_| "The system has no random numbers")?;
        Ok(Code { key, secret })
    }

    /// Whether it is of the host with this key.
    #[must_use]
    pub fn is_of(&self, key: &Fingerprint) -> bool {
        key.0[..KEY_LEN] == self.key
    }

    pub(super) fn secret(&self) -> String {
        alphabet().encode(&self.secret)
    }

    /// Compares what does not tell, by the time that it takes, how much was right.
    pub(super) fn has_secret(&self, secret: &str) -> bool {
        let hash = |text: &str| digest(&SHA256, text.as_bytes());
        hash(secret).as_ref() == hash(&self.secret()).as_ref()
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = alphabet().encode(&[&self.key[..], &self.secret[..]].concat());
        for (nth, character) in text.chars().enumerate() {
            let hyphen = if nth > 0 && nth % GROUP == 0 { "-" } else { "" };
            write!(f, "{hyphen}{character}")?;
        }
        Ok(())
    }
}

/// The secret is shown by nobody but [`std::fmt::Display`].
impl std::fmt::Debug for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Code")
    }
}

impl FromStr for Code {
    type Err = String;

    fn from_str(text: &str) -> Result<Code, String> {
        let wrong =
            || "it is six groups of four letters and digits, as bascule pair shows it on the other host".to_owned();
        let bytes = alphabet().decode(text.as_bytes()).map_err(|_| wrong())?;
        let (key, secret) = bytes.split_at_checked(KEY_LEN).ok_or_else(wrong)?;
        Ok(Code { key: key.try_into().map_err(|_| wrong())?, secret: secret.try_into().map_err(|_| wrong())? })
    }
}

/// Letters and digits that are not taken for each other; what people type for them is understood (the alphabet is Crockford's base 32).
fn alphabet() -> Encoding {
    let mut specification = Specification::new();
    specification.symbols.push_str("0123456789ABCDEFGHJKMNPQRSTVWXYZ");
    specification.translate.from.push_str("abcdefghjkmnpqrstvwxyzOoIiLl");
    specification.translate.to.push_str("ABCDEFGHJKMNPQRSTVWXYZ001111");
    specification.ignore.push_str("- ");
    specification.encoding().unwrap_or(data_encoding::BASE32_NOPAD)
}
