//! The hosts that this one is paired with: a small file for each, below the state directory.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::identity::{draft_of, write_durably};
use super::{Error, Fingerprint, unusable};

/// Where they are.
const DIR: &str = "peers";
const SUFFIX: &str = "json";
/// The longest of these files, in bytes.
const FILE_LEN_MAX: u64 = 4096;
/// The most peers: a cluster has a few.
const PEERS_MAX: usize = 1000;

/// A host that this one is paired with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// Its node name, as it said when it was paired.
    pub name: String,
    /// The name or address by which it was reached then, or from which it came.
    pub address: String,
    /// Its key.
    #[serde(with = "text")]
    pub fingerprint: Fingerprint,
    /// When.
    pub paired_at: Timestamp,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Pins(Vec<Pin>);

impl Pins {
    /// Reads them; none where there is no directory.
    ///
    /// # Errors
    /// [`Error::File`]: a file is unreadable or no peer's, or there are more than a thousand.
    pub fn read(state_dir: &Path) -> Result<Pins, Error> {
        let dir = state_dir.join(DIR);
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Pins::default()),
            entries => entries.map_err(|error| unusable(&dir, error))?,
        };
        let mut pins = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| unusable(&dir, error))?.path();
            if path.extension().is_some_and(|extension| extension == SUFFIX) {
                pins.extend(read(&path)?);
            }
            if pins.len() > PEERS_MAX {
                return Err(unusable(&dir, format!("there are more than {PEERS_MAX} peers")));
            }
        }
        pins.sort_by(|a: &Pin, b: &Pin| (&a.name, &a.fingerprint).cmp(&(&b.name, &b.fingerprint)));
        Ok(Pins(pins))
    }

    /// The one with this key.
    #[must_use]
    pub fn find(&self, key: &Fingerprint) -> Option<&Pin> {
        self.0.iter().find(|pin| pin.fingerprint == *key)
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Pin> {
        self.0.iter()
    }
}

impl Pin {
    /// Remembers the peer; one of the same key is replaced.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn keep(&self, state_dir: &Path) -> Result<(), Error> {
        let file = self.file(state_dir);
        self.try_keep(&file).map_err(|error| unusable(&file, error))
    }

    fn try_keep(&self, file: &Path) -> io::Result<()> {
        let dir = file.parent().ok_or(io::ErrorKind::NotFound)?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let draft = draft_of(file);
        write_durably(&draft, &serde_json::to_vec_pretty(self)?)?;
        fs::rename(&draft, file)?;
        fs::File::open(dir)?.sync_all()
    }

    /// Forgets the peer: it is refused from now on.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn forget(&self, state_dir: &Path) -> Result<(), Error> {
        let file = self.file(state_dir);
        let forgotten = fs::remove_file(&file).and_then(|()| fs::File::open(state_dir.join(DIR))?.sync_all());
        forgotten.map_err(|error| unusable(&file, error))
    }

    fn file(&self, state_dir: &Path) -> PathBuf {
        state_dir.join(DIR).join(self.fingerprint.hex()).with_extension(SUFFIX)
    }
}

/// `None` when it has been removed meanwhile.
fn read(path: &Path) -> Result<Option<Pin>, Error> {
    let file = match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(|error| unusable(path, error))?,
    };
    let mut text = String::new();
    file.take(FILE_LEN_MAX).read_to_string(&mut text).map_err(|error| unusable(path, error))?;
    serde_json::from_str(&text).map(Some).map_err(|error| unusable(path, error))
}

/// A fingerprint as text.
mod text {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use super::Fingerprint;

    pub(super) fn serialize<S: Serializer>(key: &Fingerprint, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(key)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Fingerprint, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}
