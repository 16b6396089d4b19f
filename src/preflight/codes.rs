//! Every code that a finding may have: one line each, with the end on which it is found and what it means. A finding cannot be made without
//! one of them, so that what `bascule migrate --help` lists is complete.

/// Which end of a migration looks for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The host that the domain leaves.
    Source,
    /// The host that it goes to.
    Destination,
    /// Either.
    Both,
}

impl End {
    /// As the table of codes has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            End::Source => "source",
            End::Destination => "destination",
            End::Both => "both",
        }
    }
}

/// Declares the codes.
macro_rules! codes {
    ($($name:ident = $code:literal, $end:ident: $meaning:literal;)*) => {
        /// What was found, as a word that stays the same from version to version.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code {
            $(#[doc = $meaning] $name,)*
        }

        impl Code {
            /// All of them, in the order of the checks.
            pub const ALL: &'static [Code] = &[$(Code::$name),*];

            /// The word.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Code::$name => $code),* }
            }

            /// Where it is looked for.
            #[must_use]
            pub fn end(self) -> End {
                match self { $(Code::$name => End::$end),* }
            }

            /// What it says, one clause.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Code::$name => $meaning),* }
            }
        }
    };
}

codes! {
    NotRunning = "not-running", Source: "the domain is paused, suspended, shut down or dying";
    LeftOver = "left-over", Source: "the domain belongs to a migration that has not ended";
    PciPassthrough = "pci-passthrough", Source: "PCI devices are passed through";
    Vnuma = "vnuma", Source: "the domain has virtual NUMA nodes";
    CannotSuspend = "cannot-suspend", Source: "the guest says that it cannot suspend";
    NoLogDirty = "no-log-dirty", Source: "the hypervisor cannot log what such a domain writes";
    DiskNotReplicated = "disk-not-replicated", Source: "a disk that is written to is no DRBD volume";
    DiskFormat = "disk-format", Source: "a disk is not in the raw format";
    DiskTwice = "disk-twice", Source: "two disks are one volume";
    SharedDiskUnknown = "shared-disk-unknown", Source: "--shared-disk names a disk that the domain has not, or that is a volume or read-only";
    SharedDiskCached = "shared-disk-cached", Source: "a disk of --shared-disk is written through this host's page cache";
    BridgeUnknown = "bridge-unknown", Source: "--map-bridge names a bridge that no nic of the domain is on";
    AttachedDirectly = "attached-directly", Source: "a volume cannot be released for a single-primary handover";
    VolumeUnknown = "volume-unknown", Both: "the kernel's DRBD has no such volume";
    NotPrimary = "not-primary", Source: "the source is not Primary";
    PeerPrimary = "peer-primary", Source: "the peer is Primary";
    Protocol = "protocol", Source: "not protocol C: an error for the dual-primary handover, else a warning";
    NotConnected = "not-connected", Both: "a volume has no connection to the peer";
    NotUpToDate = "not-up-to-date", Both: "a volume is not UpToDate on both hosts";
    Resync = "resync", Both: "a volume is being resynchronised or verified";
    MigrationOpen = "migration-open", Both: "a migration of the domain or of one of its volumes is not finished";
    DestinationUnreachable = "destination-unreachable", Source: "the destination could not be asked";
    InClear = "in-clear", Source: "the memory goes in clear (warning)";
    Configuration = "configuration", Destination: "the configuration names something that the destination does not accept";
    NameTaken = "name-taken", Destination: "a domain has the name, or that of a copy";
    UuidTaken = "uuid-taken", Destination: "a domain has the UUID";
    StillDying = "still-dying", Destination: "an earlier copy is being torn down (warning)";
    XenOlder = "xen-older", Destination: "the destination's Xen is older than the source's (warning)";
    Memory = "memory", Destination: "not enough memory is free";
    CpuLeaves = "cpu-leaves", Destination: "the domain sees more CPUID leaves than the hypervisor gives";
    CpuFeatures = "cpu-features", Destination: "the domain was given processor features that the host lacks";
    DestinationPrimary = "destination-primary", Destination: "the destination is Primary already";
    HeldOpen = "held-open", Destination: "somebody has a volume or a shared disk open";
    SizeDiffers = "size-differs", Destination: "a volume has another size";
    GenerationDiffers = "generation-differs", Destination: "a volume has another data generation";
    DiskNotAllowed = "disk-not-allowed", Destination: "the configuration does not allow a disk that is no volume";
    DiskMissing = "disk-missing", Both: "what a disk that is no volume leads to is not there";
    DiskDiffers = "disk-differs", Destination: "a disk that is no volume is another one than at the source";
    DiskNotCompared = "disk-not-compared", Destination: "only kind and size of a disk that is no volume were compared (warning)";
    BridgeMissing = "bridge-missing", Destination: "a bridge does not exist";
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The table of all codes, as `--help` shows it.
#[must_use]
pub fn table() -> String {
    let width = Code::ALL.iter().map(|code| code.name().len()).max().unwrap_or(0);
    let row = |code: &Code| format!("  {:width$}  {:11}  {}", code.name(), code.end().name(), code.meaning());
    let rows: Vec<String> = Code::ALL.iter().map(row).collect();
    format!("What preflight may find (code, end, meaning):\n{}", rows.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_words_and_documented() {
        let mut names: Vec<&str> = Code::ALL.iter().map(|code| code.name()).collect();
        let is_word = |name: &&str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
        assert!(names.iter().all(is_word), "{names:?}");
        assert!(Code::ALL.iter().all(|code| code.meaning().len() > 10 && !code.meaning().ends_with('.')));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Code::ALL.len());
        assert!(names.iter().all(|name| table().contains(&format!("  {name} "))));
    }
}
