//! DRBD's configuration files, read as drbdadm reads them, in the syntaxes of 8.3, 8.4 and 9.
//!
//! [`read`] gives a [`Config`] in which everything is inherited that is, each option with the place that it comes from; or all
//! [`Mistakes`] at once. It starts no program, asks no kernel and does no I/O but through [`Files`].
//!
//! ```
//! use drbd_conf::{Memory, Node, read};
//!
//! let text = "common { net { protocol C; } } resource r0 { device minor 0; disk /dev/sda1;
//!     on alice { address 10.0.0.1:7788; } on bob { address 10.0.0.2:7788; } }";
//! let node = Node { name: "alice".into(), addresses: Vec::new() };
//! let config = read("/etc/drbd.conf".as_ref(), &node, &Memory::one("/etc/drbd.conf", text))?;
//! let (connection, _, peer) = config.resources[0].my_connections().next().expect("two hosts are connected");
//! assert_eq!((connection.net.value("protocol"), peer.name.as_str()), (Some("C"), "bob"));
//! # Ok::<(), drbd_conf::Mistakes>(())
//! ```
//!
//! # Where it differs from drbdadm
//!
//! drbdadm has two grammars, and the version of the module decides which one is used. Here there is one, which takes what either
//! takes; `tests/oracle.rs` compares it with both. What differs, on purpose:
//!
//! - An option that is not known is kept and remarked upon, where drbdadm refuses it: a newer one may know it. Its value is not judged.
//! - drbdadm stops at the first word that does not fit, and judges nothing more. Here a statement is passed over and reading goes on.
//! - `resync-after` with an unknown resource is a remark, as drbdadm has it in scripts.
//! - `require-drbd-module-version` is kept and not compared with the module.
//! - Where 8.4 and 9 do not agree on what is inherited, 8.4 counts unless the resource says what only 9 understands; it is remarked
//!   upon.
//! - A value that is missing counts as `yes` and is judged as that, also of options that are no flags; a resource without hosts, and
//!   `discard-node-` with no such node, are refused at once, not when something is to be done.
//! - What ends within quotation marks is refused also where drbdadm takes it for a value.
//! - Things have bounds: see the constants in `reader`, `settle` and the sections.
//! - Which addresses this host has is asked for `floating` only, never to judge the address of `on`.
//! - Without `minor`, only names such as /dev/drbd0 have one; drbdadm also looks at device nodes that exist.

mod address;
mod connection;
mod files;
mod glob;
mod host;
mod known;
mod model;
mod options;
mod place;
mod reader;
mod resource;
mod section;
mod settle;
mod token;
mod top;
mod volume;

use std::path::{Path, PathBuf};

pub use files::{Disk, Files, Memory};
pub use model::{
    Address, Config, Connection, End, Family, Host, HostKind, MetaDisk, Node, Path as ConnectionPath, PeerDevice,
    Proxy, Requirement, Resource, Sections, Volume,
};
pub use options::{Options, Setting};
pub use place::{Mistakes, Place, Remark};

use reader::Reader;
use settle::Settler;

/// The files that drbdadm takes, the first that is there.
pub const FILES: &[&str] = &[
    "/etc/drbd-90.conf",
    "/etc/drbd-84.conf",
    "/etc/drbd-83.conf",
    "/etc/drbd-82.conf",
    "/etc/drbd-08.conf",
    "/etc/drbd.conf",
];

/// The file of this host that drbdadm would take; `None` where there is none.
#[must_use]
pub fn find() -> Option<PathBuf> {
    FILES.iter().map(PathBuf::from).find(|path| path.exists())
}

/// Reads a file and what it includes, as `node` sees it.
///
/// # Errors
/// Everything that is wrong with the files, each with its place.
pub fn read(file: &Path, node: &Node, files: &dyn Files) -> Result<Config, Mistakes> {
    let mut reader = Reader::new(files, node);
    let start = Place { file: file.into(), line: 1 };
    reader.within(file, &start, Reader::top);
    let Reader { config, claims, mistakes, remarks, broken, .. } = reader;
    Settler::new(node, config, claims, mistakes, remarks, broken).run()
}
