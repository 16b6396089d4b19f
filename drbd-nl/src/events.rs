//! Events: everything that exists, then every change.
