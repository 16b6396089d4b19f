//! Which of DRBD's two netlink languages the loaded module speaks. Numbers of some states, the way in which an object is
//! addressed and some objects (paths, peers without a connection) differ; everything else is one language.

/// The version of family `drbd` that the kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Version 1: DRBD 8.4, in the Linux tree. One peer; roles belong to minors; connections are named by their addresses.
    V84,
    /// Version 2: DRBD 9. Many peers, named by node id; a role belongs to the whole resource.
    V9,
}

impl Dialect {
    /// The dialect of a family by its name and `CTRL_ATTR_VERSION`; nothing when this crate does not know it.
    pub fn of_family(name: &str, version: u32) -> Option<Dialect> {
        match (name, version) {
            ("drbd", 1) => Some(Dialect::V84), // linux/drbd.h, API_VERSION
            ("drbd", 2) => Some(Dialect::V9),  // drbd-headers, drbd_genl_api.h
            _ => None,
        }
    }

    /// The family version, which DRBD 9 wants in `genlmsghdr.version`.
    pub fn version(self) -> u8 {
        match self {
            Dialect::V84 => 1,
            Dialect::V9 => 2,
        }
    }
}
