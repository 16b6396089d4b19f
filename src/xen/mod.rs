//! Safe wrappers over libxenlight and libxenstore: the only place with `unsafe`. Nothing here knows about migration.

#![expect(unsafe_code, reason = "calls into C libraries; each block names the header that it relies on")]

pub mod vbd;
pub mod xenstore;
