//! Where a lab keeps its things.
//!
//! Sockets are apart from the rest because their paths may have 108 bytes at most (`sockaddr_un`, unix(7)).

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use sha2::{Digest, Sha256};

/// The variable that names the directory of a lab, for those who want a second one.
pub const DIR_VARIABLE: &str = "BASCULE_LAB_DIR";

/// Room that the longest name in the sockets' directory needs, ssh's temporary suffix included.
const SOCKET_NAME_MAX: usize = 40;
const SOCKET_PATH_MAX: usize = 107;

/// The numbers of the two nodes.
pub const NODES: [u8; 2] = [1, 2];

/// The directories of one lab.
#[derive(Debug, Clone)]
pub struct Layout {
    dir: PathBuf,
    sockets: PathBuf,
    cache: PathBuf,
}

impl Layout {
    /// The lab in `dir`; without one, that of `BASCULE_LAB_DIR`, else `target/lab` of this checkout.
    ///
    /// # Errors
    /// The directories cannot be made.
    pub fn new(dir: Option<&Path>) -> anyhow::Result<Self> {
        let dir = dir
            .map(Path::to_owned)
            .or_else(|| env::var_os(DIR_VARIABLE).map(PathBuf::from))
            .unwrap_or_else(|| workspace().join("target/lab"));
        fs::create_dir_all(&dir).with_context(|| format!("{} cannot be made", dir.display()))?;
        let dir = dir.canonicalize()?;
        let sockets = socket_dir(&dir);
        let cache = cache_dir()?;
        for dir in [&sockets, &cache] {
            fs::create_dir_all(dir).with_context(|| format!("{} cannot be made", dir.display()))?;
        }
        Ok(Self { dir, sockets, cache })
    }

    /// The directory of the lab.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The directory of its sockets: `run` in the lab's, or one under `/tmp` where that path is too long.
    #[must_use]
    pub fn sockets(&self) -> &Path {
        &self.sockets
    }

    /// What is dear to build, shared by all labs of this user.
    #[must_use]
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// What a node printed on its serial line: the hypervisor's messages and its dom0's.
    #[must_use]
    pub fn console(&self, node: u8) -> PathBuf {
        self.dir.join(format!("node{node}.console"))
    }

    /// Our programs, as they were pushed last.
    #[must_use]
    pub fn programs(&self) -> PathBuf {
        self.dir.join("programs")
    }

    /// Logs that tests have collected, one directory each.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    pub(crate) fn qmp_socket(&self, node: u8) -> PathBuf {
        self.sockets.join(format!("qmp-node{node}.sock"))
    }

    pub(crate) fn pid_file(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.pid"))
    }

    pub(crate) fn disk(&self, node: u8) -> PathBuf {
        self.dir.join(format!("node{node}.disk"))
    }

    pub(crate) fn state_disk(&self, node: u8) -> PathBuf {
        self.dir.join(format!("node{node}.state"))
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// The top of this checkout.
#[must_use]
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap_or_else(|_| PathBuf::from("."))
}

fn socket_dir(dir: &Path) -> PathBuf {
    let run = dir.join("run");
    if run.as_os_str().len() + SOCKET_NAME_MAX <= SOCKET_PATH_MAX {
        return run;
    }
    let digest = Sha256::digest(dir.as_os_str().as_encoded_bytes());
    env::temp_dir().join(format!("bascule-lab-{}", hex(&digest[..6])))
}

fn cache_dir() -> anyhow::Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME") {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir),
        _ => {
            PathBuf::from(env::var_os("HOME").context("HOME is not set: no place for the lab's cache")?).join(".cache")
        }
    };
    Ok(base.join("bascule-lab"))
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
