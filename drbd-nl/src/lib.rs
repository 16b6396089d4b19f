//! DRBD generic netlink.
