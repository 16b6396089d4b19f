//! A host's own key, and what keys are called.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use data_encoding::{BASE64_NOPAD, HEXLOWER};
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SigningKey};

use super::{Error, unusable};

/// The key's file, below the state directory: an Ed25519 key, PKCS #8 (RFC 8410), DER.
const FILE: &str = "identity.key";
/// The longest such file, in bytes.
const FILE_LEN_MAX: u64 = 4096;

/// The SHA-256 of a public key (its SubjectPublicKeyInfo, RFC 5280), written as ssh does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// Of a public key.
    #[must_use]
    pub fn of(public_key: &[u8]) -> Fingerprint {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, public_key).as_ref());
        Fingerprint(bytes)
    }

    /// As a part of a file's name.
    pub(super) fn hex(&self) -> String {
        HEXLOWER.encode(&self.0)
    }
}

const PREFIX: &str = "SHA256:";

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{PREFIX}{}", BASE64_NOPAD.encode(&self.0))
    }
}

impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = String;

    fn from_str(text: &str) -> Result<Fingerprint, String> {
        let bytes = text.strip_prefix(PREFIX).and_then(|text| BASE64_NOPAD.decode(text.as_bytes()).ok());
        let bytes = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        bytes.map(Fingerprint).ok_or_else(|| "it is no fingerprint, such as bascule peers shows".to_owned())
    }
}

/// This host's key.
#[derive(Clone, Debug)]
pub struct Identity {
    key: Arc<dyn SigningKey>,
    public: Vec<u8>,
}

impl Identity {
    /// Where the key is, below a state directory.
    pub(crate) fn file(state_dir: &Path) -> PathBuf {
        state_dir.join(FILE)
    }

    /// Reads the key below a state directory, and makes it first where there is none.
    ///
    /// # Errors
    /// [`Error::File`]: it cannot be read or made, is no key, or others than its owner can read it.
    pub fn load_or_make(state_dir: &Path) -> Result<Identity, Error> {
        let file = Identity::file(state_dir);
        match Identity::load(&file)? {
            Some(identity) => Ok(identity),
            None => {
                make(state_dir, &file).map_err(|error| unusable(&file, error))?;
                Identity::load(&file)?.ok_or_else(|| unusable(&file, "it vanished"))
            }
        }
    }

    fn load(file: &Path) -> Result<Option<Identity>, Error> {
        let opened = match fs::File::open(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(|error| unusable(file, error))?,
        };
        let mode = opened.metadata().map_err(|error| unusable(file, error))?.mode();
        if mode & 0o077 != 0 {
            return Err(unusable(
                file,
                format!(
                    "others could have read this key (mode {:o}): remove it, and pair this host anew",
                    mode & 0o7777
                ),
            ));
        }
        let mut der = Vec::new();
        opened.take(FILE_LEN_MAX).read_to_end(&mut der).map_err(|error| unusable(file, error))?;
        Identity::of(&der).map(Some).ok_or_else(|| unusable(file, "it is no Ed25519 key"))
    }

    fn of(der: &[u8]) -> Option<Identity> {
        let key = rustls::crypto::ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(der)).ok()?;
        let public = key.public_key()?.to_vec();
        Some(Identity { key, public })
    }

    /// The public key's fingerprint.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.public)
    }

    /// The pair of keys as a handshake shows it: the raw public key stands where certificates do.
    pub(super) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::new(CertifiedKey::new(vec![CertificateDer::from(self.public.clone())], Arc::clone(&self.key)))
    }
}

/// On disk before anybody is shown it; of several processes that make one at a time, the first one's stays.
fn make(state_dir: &Path, file: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).create(state_dir)?;
    let der = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
        .map_err(|_| io::Error::other("the system has no random numbers"))?;
    let draft = draft_of(file);
    write_durably(&draft, der.as_ref())?;
    let linked = match fs::hard_link(&draft, file) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    };
    fs::remove_file(&draft)?;
    linked?;
    fs::File::open(state_dir)?.sync_all()
}

/// A name of its own for each process and thread, beside the file.
pub(super) fn draft_of(file: &Path) -> PathBuf {
    file.with_extension(format!("{}.draft", uuid::Uuid::new_v4()))
}

/// Writes a file that only its owner can read.
pub(super) fn write_durably(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    created.write_all(bytes)?;
    created.sync_all()
}
