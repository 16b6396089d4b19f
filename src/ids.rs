//! Types for identity. Each wraps the number or name that Xen or DRBD uses, so that two of them cannot be confused.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A domain's number on one host, 0 to 32751 (xen.h, `DOMID_FIRST_RESERVED`). It means nothing on another host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DomId(pub u32);

impl fmt::Display for DomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The minor of a DRBD device on one host: `/dev/drbdN` is block device 147:N. The two hosts of a volume may use different minors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Minor(pub u32);

impl fmt::Display for Minor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One volume of a DRBD resource, the same on all its hosts: `RES/VOL`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VolumeId {
    /// The resource's name.
    pub resource: String,
    /// The volume's number in the resource, 0 to 65535.
    pub volume: u16,
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.resource, self.volume)
    }
}
