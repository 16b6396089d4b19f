//! What a migration needs of replicated storage, and no more: the seam between the story and DRBD.
//!
//! [`crate::drbd`] implements it by generic netlink; tests and other tooling implement it too.
