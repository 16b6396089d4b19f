//! Safe wrappers over libxenlight and libxenstore: the only place with `unsafe`. Nothing here knows about migration.
//!
//! [`Context`] is what most of the program sees; it implements [`crate::toolstack::Toolstack`]. Short calls share one
//! libxl context; each long one (create, destroy, save, restore) has a context of its own.

#![expect(unsafe_code, reason = "calls into C libraries; each block names the header that it relies on")]

mod begin;
pub mod clock;
pub mod config;
mod console;
pub mod context;
mod control;
pub mod cpuid;
mod disposed;
pub mod domain;
pub mod error;
mod handle;
mod life;
mod logdirty;
mod logger;
mod memory;
mod operation;
mod policy;
mod stream;
pub mod topology;
pub mod vbd;
pub mod xenstore;
pub mod xlu;

pub use config::DomainConfig;
pub use console::ConsoleLine;
pub use context::Context;
pub use error::Error;
