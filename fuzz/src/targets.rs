//! One file for each place where bytes from elsewhere come in.

pub(crate) mod configuration;
pub(crate) mod domain;
pub(crate) mod drbd_conf;
pub(crate) mod frames;
pub(crate) mod handshake;
pub(crate) mod journal;
pub(crate) mod machines;
pub(crate) mod netlink;
pub(crate) mod session;
pub(crate) mod stream;
pub(crate) mod xend;
