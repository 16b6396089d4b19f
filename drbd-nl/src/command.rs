//! Command numbers (linux/drbd_genl.h for 8.4, drbd-headers 9.3.3 for 9; no number ever had two meanings).

use std::fmt;

/// `genlmsghdr.cmd`: a request, the answer to it, or a notification.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Command(pub u8);

macro_rules! commands {
    ($($number:literal $name:ident $word:literal $doc:literal,)*) => {
        impl Command {
            $(#[doc = $doc] pub const $name: Command = Command($number);)*

            fn word(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some($word),)*
                    _ => None,
                }
            }
        }
    };
}

commands! {
    1 EVENT "event" "8.4's old notification.",
    2 GET_STATUS "get-status" "8.4: one minor in one record.",
    5 NEW_MINOR "new-minor" "Makes a volume.",
    6 DEL_MINOR "del-minor" "Removes a volume.",
    7 NEW_RESOURCE "new-resource" "Makes a resource.",
    8 DEL_RESOURCE "del-resource" "Removes a resource.",
    9 RESOURCE_OPTS "resource-options" "Changes a resource's options.",
    10 CONNECT "connect" "Starts a connection.",
    11 DISCONNECT "disconnect" "Ends a connection.",
    12 ATTACH "attach" "Gives a volume its backing device.",
    13 RESIZE "resize" "Changes a volume's size.",
    14 PRIMARY "primary" "Promotes.",
    15 SECONDARY "secondary" "Demotes.",
    16 NEW_C_UUID "new-current-uuid" "Starts a new data generation.",
    17 START_OV "verify" "Starts an online verify.",
    18 DETACH "detach" "Takes a volume's backing device away.",
    19 INVALIDATE "invalidate" "Declares the local data bad.",
    20 INVAL_PEER "invalidate-remote" "Declares the peer's data bad.",
    21 PAUSE_SYNC "pause-sync" "Holds a resync.",
    22 RESUME_SYNC "resume-sync" "Lets a resync go on.",
    23 SUSPEND_IO "suspend-io" "Holds all I/O.",
    24 RESUME_IO "resume-io" "Lets I/O go on.",
    25 OUTDATE "outdate" "Marks the local data as old.",
    26 GET_TIMEOUT_TYPE "get-timeout-type" "Which timeout applies when waiting for the peer.",
    27 DOWN "down" "Takes a resource apart.",
    28 CHG_DISK_OPTS "disk-options" "Changes a volume's options.",
    29 CHG_NET_OPTS "net-options" "Changes a connection's options.",
    30 GET_RESOURCES "get-resources" "Dump of the resources.",
    31 GET_DEVICES "get-devices" "Dump of the volumes.",
    32 GET_CONNECTIONS "get-connections" "Dump of the connections.",
    33 GET_PEER_DEVICES "get-peer-devices" "Dump of the volumes of each connection.",
    34 RESOURCE_STATE "resource-state" "Notification about a resource.",
    35 DEVICE_STATE "device-state" "Notification about a volume.",
    36 CONNECTION_STATE "connection-state" "Notification about a connection.",
    37 PEER_DEVICE_STATE "peer-device-state" "Notification about a volume of a connection.",
    38 GET_INITIAL_STATE "get-initial-state" "Dump of everything as notifications.",
    40 HELPER "helper" "Notification: the kernel runs a helper program.",
    41 INITIAL_STATE_DONE "initial-state-done" "Notification: the initial state is complete.",
    42 FORGET_PEER "forget-peer" "9: frees a peer's slot in the metadata.",
    43 CHG_PEER_DEVICE_OPTS "peer-device-options" "9: changes the options of a volume of a connection.",
    44 NEW_PEER "new-peer" "9: makes a connection.",
    45 NEW_PATH "new-path" "9: gives a connection a pair of addresses.",
    46 DEL_PEER "del-peer" "9: removes a connection.",
    47 DEL_PATH "del-path" "9: removes a pair of addresses.",
    48 PATH_STATE "path-state" "9: notification about a path.",
    49 RENAME_RESOURCE "rename-resource" "9.1 and later: renames a resource.",
    50 GET_PATHS "get-paths" "Dump of the paths; from 9.1.17 and 9.2.6 on.",
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.word() {
            Some(word) => f.pad(word),
            None => write!(f, "command({})", self.0),
        }
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
