//! Every setting: its table, its key, its default and what it is for, each said once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Address, Count, Level, Origin, PathPattern, Value};
use crate::daemon::{self, Allow, Nets};
use crate::plan::BridgeMap;
use crate::protocol::DiskUse;
use crate::{journal, plan, receive};

/// What identifies a setting.
pub(super) struct Setting {
    pub(super) table: &'static str,
    pub(super) key: &'static str,
    pub(super) about: &'static str,
}

pub(super) type Visit<'a> = dyn FnMut(Setting, &mut dyn Value) + 'a;

/// The tables in the order of the file, and what each is about.
pub(super) const TABLES: &[(&str, &str)] = &[
    ("relocation", Relocation::ABOUT),
    ("security", Security::ABOUT),
    ("guests", Guests::ABOUT),
    ("state", State::ABOUT),
    ("timeouts.source", " How long the source of a migration waits, in seconds, 0.1 to 86400."),
    ("timeouts.destination", " How long the destination of a migration waits, in seconds, 0.1 to 86400."),
    ("log", Log::ABOUT),
];

/// Every setting of this host, and where it comes from.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Receiving domains.
    pub relocation: Relocation,
    /// How connections are protected.
    pub security: Security,
    /// What domains that come from elsewhere may have of this host.
    pub guests: Guests,
    /// What is kept on disk.
    pub state: State,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// What is logged.
    pub log: Log,
    pub(super) origins: BTreeMap<(&'static str, &'static str), Origin>,
}

/// The bounds of both ends' waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// Where this host sends a domain.
    pub source: plan::Timeouts,
    /// Where it receives one.
    pub destination: receive::Timeouts,
}

/// Declares a table.
macro_rules! table {
    ($(#[doc = $about:literal])* $name:ident in $table:literal {
        $($(#[doc = $doc:literal])* $key:literal $field:ident: $type:ty = $default:expr,)*
    }) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $($(#[doc = $doc])* pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> $name {
                $name { $($field: $default,)* }
            }
        }

        impl $name {
            const ABOUT: &'static str = concat!($($about, "\n"),*);

            fn visit(&mut self, each: &mut Visit<'_>) {
                $(each(Setting { table: $table, key: $key, about: concat!($($doc, "\n"),*) }, &mut self.$field);)*
            }
        }
    };
}

table! {
    /// Receiving domains from other hosts.
    Relocation in "relocation" {
        /// Whether other hosts may send domains here. If not, the daemon serves no port, and still finishes, or takes
        /// back, migrations whose process has died.
        "enabled" enabled: bool = true,
        /// The port to listen on, 1 to 65535.
        "port" port: u16 = plan::RELOCATION_PORT,
        /// Where to listen: addresses, or names of interfaces, which stand for the addresses that they have when the
        /// daemon starts. All addresses of this host if there are none.
        "address" address: Vec<Address> = Vec::new(),
        /// Who may connect: addresses ("10.99.0.2"), networks ("10.99.0.0/24"), full names ("node2.example.org": the
        /// peer's address must resolve to the name, and the name to the address), or regular expressions between slashes
        /// ('/node[0-9]\.example\.org/': the whole of the peer's address, or of its name found in that way, must match).
        /// Nobody if the list is empty. Whoever may connect must still prove to be a peer: see [security].
        "hosts-allow" hosts_allow: Allow = Allow::everywhere(),
        /// The most sessions at one time, of peers that are known, 1 to 1000.
        "sessions" sessions: Count<1, 1000> = Count(daemon::SESSIONS_MAX),
        /// The same of one address, 1 to 1000.
        "sessions-per-address" sessions_per_address: Count<1, 1000> = Count(daemon::SESSIONS_OF_ADDRESS_MAX),
        /// The most connections at one time that have not proved who they are, 1 to 1000. Each may cost a process
        /// for timeouts.destination.authentication; where one has many of them, they make room for those of others.
        "half-open" half_open: Count<1, 1000> = Count(daemon::HALF_OPEN_MAX),
        /// The same of one address, 1 to 1000; an IPv6 network of 64 bits has four times as many.
        "half-open-per-address" half_open_per_address: Count<1, 1000> = Count(daemon::HALF_OPEN_OF_ADDRESS_MAX),
    }
}

table! {
    /// How relocation connections are protected. They are encrypted, and both ends prove who they are: with the keys that were
    /// pinned by `bascule pair`; or, where authority, certificate, key and names are set, with certificates.
    Security in "security" {
        /// The file of the authority's certificates, PEM.
        "authority" authority: Option<PathBuf> = None,
        /// The file of this host's certificate and those between it and the authority's, PEM. It must be good for both ends of a connection.
        "certificate" certificate: Option<PathBuf> = None,
        /// The file of its key, PEM.
        "key" key: Option<PathBuf> = None,
        /// The file of the certificates that the authority has revoked, PEM.
        "revoked" revoked: Option<PathBuf> = None,
        /// The names or addresses of this cluster's hosts: a peer's certificate must be for one of them.
        "names" names: Vec<String> = Vec::new(),
        /// Whether the kernel encrypts, where it can. If not, the program does, which takes more time.
        "kernel-tls" kernel_tls: bool = true,
        /// The addresses and networks of peers with which connections are NOT encrypted and nobody proves who he is. Both ends must
        /// have each other in this list. Whoever can send from such an address, or listen on the way, can read and
        /// change the memory of domains.
        "in-clear" in_clear: Nets = Nets::default(),
    }
}

table! {
    /// What the configuration of a domain that comes from another host may name on this one. All else is refused.
    Guests in "guests" {
        /// The directories in which their kernels and ramdisks are. None of them is read for a domain that is received, but
        /// whoever starts it anew here reads them.
        "kernels" kernels: Vec<PathBuf> = ["/boot", "/usr/lib/xen", "/var/lib/xen"].map(PathBuf::from).into(),
        /// The hotplug programs that their nics may name, written as the domain's file has them.
        "nic-scripts" nic_scripts: Vec<String> = ["vif-bridge", "/etc/xen/scripts/vif-bridge"].map(str::to_owned).into(),
        /// The disks, beside their DRBD volumes, that they may write: block devices that both hosts have, where the source's
        /// administrator says so by --shared-disk. Paths, in which * stands for anything but slashes, such as
        /// "/dev/mapper/san-*". They may be read, too.
        "shared-disks" shared_disks: Vec<PathPattern> = Vec::new(),
        /// The block devices and files that they may only read, such as "/srv/iso/*.iso" for CD-ROMs. Both hosts must
        /// have the same there.
        "read-only-disks" read_only_disks: Vec<PathPattern> = Vec::new(),
        /// Bridges that have another name here: "OLD=NEW" puts nics that are on OLD at the source on NEW, unless --map-bridge has
        /// moved them already.
        "bridges" bridges: Vec<BridgeMap> = Vec::new(),
    }
}

table! {
    /// What is kept on disk.
    State in "state" {
        /// The directory of the journals of migrations.
        "dir" dir: PathBuf = journal::DIR.into(),
        /// How many finished journals are kept as history, 1 to 100000.
        "history" history: Count<1, 100_000> = Count(journal::KEPT),
    }
}

table! {
    /// The log.
    Log in "log" {
        /// What the daemon logs: "warn", "info", "debug" or "trace", each more than the one before. --verbose raises it
        /// by one. The other commands show warnings, and more with --verbose.
        "level" level: Level = Level::Info,
    }
}

impl Guests {
    /// Whether a domain from elsewhere may use this path as a disk.
    #[must_use]
    pub fn allows_disk(&self, usage: DiskUse, path: &Path) -> bool {
        let read = self.read_only_disks.iter().filter(|_| usage == DiskUse::ReadOnly);
        self.shared_disks.iter().chain(read).any(|pattern| pattern.allows(path))
    }
}

impl Config {
    /// Every setting in turn, in the order of [`TABLES`].
    pub(super) fn visit(&mut self, each: &mut Visit<'_>) {
        self.relocation.visit(each);
        self.security.visit(each);
        self.guests.visit(each);
        self.state.visit(each);
        let Timeouts { source, destination } = &mut self.timeouts;
        for (key, about) in plan::Timeouts::NAMES.iter().zip(plan::Timeouts::ABOUT) {
            if let Some(bound) = source.slot(key) {
                each(Setting { table: "timeouts.source", key, about }, bound);
            }
        }
        for (key, about) in receive::Timeouts::NAMES.iter().zip(receive::Timeouts::ABOUT) {
            if let Some(bound) = destination.slot(key) {
                each(Setting { table: "timeouts.destination", key, about }, bound);
            }
        }
        self.log.visit(each);
    }
}
