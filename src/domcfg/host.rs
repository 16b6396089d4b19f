//! What some keys ask of the host that the file is read on: its CPUs, and where its Xen has firmware. Most files ask nothing, so
//! it is looked up when it is needed, and a file can be read without Xen. What it says of all domains is told to it.

use std::cell::OnceCell;
use std::path::PathBuf;

use super::defaults::Defaults;
use crate::xen::Context;
use crate::xen::topology::Topology;

/// A host, as far as files ask.
#[derive(Clone, Debug)]
pub struct Host {
    known: OnceCell<Result<Facts, String>>,
    pub(super) defaults: Defaults,
}

/// What is known of it.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Its CPUs and nodes.
    pub topology: Topology,
    /// The directories where its release of Xen may have firmware, those of distributions before that of a build by hand.
    pub firmware_directories: Vec<PathBuf>,
}

impl Host {
    /// The one that this program runs on.
    #[must_use]
    pub fn this() -> Self {
        Self { known: OnceCell::new(), defaults: Defaults::default() }
    }

    /// One of which this is known.
    #[must_use]
    pub fn known(facts: Facts) -> Self {
        Self { known: OnceCell::from(Ok(facts)), defaults: Defaults::default() }
    }

    /// The same, where an administrator has said this.
    #[must_use]
    pub fn with(self, defaults: Defaults) -> Self {
        Self { defaults, ..self }
    }

    /// The same, but domains may have all CPUs (`xl create --ignore-global-affinity-masks`).
    #[must_use]
    pub fn with_all_cpus(self) -> Self {
        Self { defaults: self.defaults.with_all_cpus(), ..self }
    }

    pub(super) fn topology(&self) -> Result<Topology, String> {
        self.facts().map(|facts| facts.topology.clone())
    }

    /// The first of the directories that exists; where none does, the first.
    pub(super) fn firmware_directory(&self) -> Result<PathBuf, String> {
        let directories = &self.facts()?.firmware_directories;
        let found = directories.iter().find(|directory| directory.is_dir()).or(directories.first());
        found.cloned().ok_or_else(|| "is in no directory that is known".to_owned())
    }

    fn facts(&self) -> Result<&Facts, String> {
        self.known
            .get_or_init(|| ask().map_err(|error| format!("depends on this host, and {error}")))
            .as_ref()
            .map_err(Clone::clone)
    }
}

fn ask() -> Result<Facts, crate::xen::Error> {
    let context = Context::open()?;
    let version = context.version()?;
    let debian = format!("/usr/lib/xen-{}.{}/boot", version.major, version.minor);
    let directories = [debian.as_str(), "/usr/libexec/xen/boot", "/usr/lib/xen/boot", "/usr/local/lib/xen/boot"];
    Ok(Facts { topology: context.topology()?, firmware_directories: directories.map(PathBuf::from).to_vec() })
}
