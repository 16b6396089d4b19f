//! The options that are known, and what their values may be (drbd-utils 9.22, `drbdsetup xml-help`; 8.4's by `drbdsetup-84`).
//!
//! Where the two differ, the wider bound is taken: a value is a mistake where neither would have it.

use crate::place::shown;

/// Which section an option stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Context {
    Net,
    Disk,
    PeerDevice,
    Resource,
    Startup,
    Handlers,
    Proxy,
}

/// What a value may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    Flag,
    /// From, to, and what the number counts where no unit is written.
    Number(u64, u64, Unit),
    Choice(&'static [&'static str]),
    /// A protocol, in either case.
    Protocol,
    /// A word of [`QUORUM`], or a number of nodes.
    Quorum,
    /// At most so many bytes.
    Text(usize),
    Any,
}

/// What a bare number counts, as powers of two of a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    One = 0,
    Sectors = 9,
    KiB = 10,
}

const QUORUM: &[&str] = &["off", "majority", "all"];
/// The most nodes of a resource.
const NODES_MAX: u64 = 32;
const FENCING: Check = Check::Choice(&["dont-care", "resource-only", "resource-and-stonith"]);
/// shared-secret and the names of algorithms (drbd.h, SHARED_SECRET_MAX), without the NUL.
const ALGORITHM: Check = Check::Text(63);
const WITHOUT_DATA: Check = Check::Choice(&["io-error", "suspend-io"]);
/// A number of the proxy's, which no bound is known of.
const COUNT: Check = Check::Number(0, u64::MAX, Unit::One);

const NET: &[(&str, Check)] = &[
    ("protocol", Check::Protocol),
    ("transport", Check::Any),
    ("timeout", Check::Number(1, 600, Unit::One)),
    ("max-epoch-size", Check::Number(1, 20_000, Unit::One)),
    ("connect-int", Check::Number(1, 120, Unit::One)),
    ("ping-int", Check::Number(1, 120, Unit::One)),
    ("ping-timeout", Check::Number(1, 300, Unit::One)),
    ("sndbuf-size", Check::Number(0, 10 << 20, Unit::One)),
    ("rcvbuf-size", Check::Number(0, 10 << 20, Unit::One)),
    ("ko-count", Check::Number(0, 200, Unit::One)),
    ("max-buffers", Check::Number(32, 131_072, Unit::One)),
    ("unplug-watermark", Check::Number(1, 131_072, Unit::One)),
    ("allow-two-primaries", Check::Flag),
    ("cram-hmac-alg", ALGORITHM),
    ("shared-secret", ALGORITHM),
    ("data-integrity-alg", ALGORITHM),
    ("csums-alg", ALGORITHM),
    ("verify-alg", ALGORITHM),
    (
        "after-sb-0pri",
        Check::Choice(&[
            "disconnect",
            "discard-younger-primary",
            "discard-older-primary",
            "discard-zero-changes",
            "discard-least-changes",
            "discard-local",
            "discard-remote",
        ]),
    ),
    (
        "after-sb-1pri",
        Check::Choice(&["disconnect", "consensus", "discard-secondary", "call-pri-lost-after-sb", "violently-as0p"]),
    ),
    ("after-sb-2pri", Check::Choice(&["disconnect", "call-pri-lost-after-sb", "violently-as0p"])),
    ("always-asbp", Check::Flag),
    ("rr-conflict", Check::Choice(&["disconnect", "call-pri-lost", "violently", "retry-connect", "auto-discard"])),
    ("tcp-cork", Check::Flag),
    ("on-congestion", Check::Choice(&["block", "pull-ahead", "disconnect"])),
    ("congestion-fill", Check::Number(0, 10 << 21, Unit::Sectors)),
    ("congestion-extents", Check::Number(67, 65_534, Unit::One)),
    ("csums-after-crash-only", Check::Flag),
    ("use-rle", Check::Flag),
    ("socket-check-timeout", Check::Number(0, 300, Unit::One)),
    ("fencing", FENCING),
    ("allow-remote-read", Check::Flag),
    ("_name", ALGORITHM),
];

const DISK: &[(&str, Check)] = &[
    ("size", Check::Number(0, 2 << 40, Unit::Sectors)),
    ("on-io-error", Check::Choice(&["pass_on", "call-local-io-error", "detach"])),
    ("fencing", FENCING),
    ("max-bio-bvecs", Check::Number(0, 128, Unit::One)),
    ("use-bmbv", Check::Flag),
    ("disk-barrier", Check::Flag),
    ("disk-flushes", Check::Flag),
    ("disk-drain", Check::Flag),
    ("md-flushes", Check::Flag),
    // A resource, a volume or a minor: it is looked up when all files are read.
    ("resync-after", Check::Any),
    // Out of its bounds it is moved into them.
    ("al-extents", COUNT),
    ("al-updates", Check::Flag),
    ("discard-zeroes-if-aligned", Check::Flag),
    ("disable-write-same", Check::Flag),
    ("disk-timeout", Check::Number(0, 6000, Unit::One)),
    (
        "read-balancing",
        Check::Choice(&[
            "prefer-local",
            "prefer-remote",
            "round-robin",
            "least-pending",
            "when-congested-remote",
            "32K-striping",
            "64K-striping",
            "128K-striping",
            "256K-striping",
            "512K-striping",
            "1M-striping",
        ]),
    ),
    ("rs-discard-granularity", Check::Number(0, 1 << 20, Unit::One)),
];

const PEER_DEVICE: &[(&str, Check)] = &[
    ("resync-rate", Check::Number(1, 8 << 20, Unit::KiB)),
    ("c-plan-ahead", Check::Number(0, 300, Unit::One)),
    ("c-delay-target", Check::Number(1, 100, Unit::One)),
    ("c-fill-target", Check::Number(0, 1 << 20, Unit::Sectors)),
    ("c-max-rate", Check::Number(0, 4 << 20, Unit::KiB)),
    ("c-min-rate", Check::Number(0, 4 << 20, Unit::KiB)),
    ("bitmap", Check::Flag),
];

const RESOURCE: &[(&str, Check)] = &[
    ("cpu-mask", Check::Text(908)),
    ("on-no-data-accessible", WITHOUT_DATA),
    ("auto-promote", Check::Flag),
    ("peer-ack-window", Check::Number(2048, 204_800, Unit::Sectors)),
    ("peer-ack-delay", Check::Number(1, 10_000, Unit::One)),
    ("twopc-timeout", Check::Number(50, 600, Unit::One)),
    ("twopc-retry-timeout", Check::Number(1, 50, Unit::One)),
    ("auto-promote-timeout", Check::Number(0, 600, Unit::One)),
    ("max-io-depth", Check::Number(4, 0xffff_ffff, Unit::One)),
    ("quorum", Check::Quorum),
    ("on-no-quorum", WITHOUT_DATA),
    ("quorum-minimum-redundancy", Check::Quorum),
    ("on-suspended-primary-outdated", Check::Choice(&["disconnect", "force-secondary"])),
];

const STARTUP: &[(&str, Check)] = &[
    ("wfc-timeout", Check::Number(0, 300_000, Unit::One)),
    ("degr-wfc-timeout", Check::Number(0, 300_000, Unit::One)),
    ("outdated-wfc-timeout", Check::Number(0, 300_000, Unit::One)),
    ("wait-after-sb", Check::Flag),
];

const HANDLERS: &[(&str, Check)] = &[
    ("pri-on-incon-degr", Check::Any),
    ("pri-lost-after-sb", Check::Any),
    ("pri-lost", Check::Any),
    ("initial-split-brain", Check::Any),
    ("split-brain", Check::Any),
    ("outdate-peer", Check::Any),
    ("fence-peer", Check::Any),
    ("unfence-peer", Check::Any),
    ("local-io-error", Check::Any),
    ("before-resync-target", Check::Any),
    ("after-resync-target", Check::Any),
    ("before-resync-source", Check::Any),
    ("out-of-sync", Check::Any),
    ("quorum-lost", Check::Any),
    ("disconnected", Check::Any),
];

const PROXY: &[(&str, Check)] = &[
    ("memlimit", COUNT),
    ("read-loops", COUNT),
    ("compression", COUNT),
    ("bwlimit", COUNT),
    ("sndbuf-size", Check::Number(0, 10 << 20, Unit::One)),
    ("rcvbuf-size", Check::Number(0, 10 << 20, Unit::One)),
    ("ping-timeout", Check::Number(1, 300, Unit::One)),
];

/// What the section's option of that name may be; `None` where it has none.
pub(crate) fn check_of(context: Context, name: &str) -> Option<Check> {
    let table = match context {
        Context::Net => NET,
        Context::Disk => DISK,
        Context::PeerDevice => PEER_DEVICE,
        Context::Resource => RESOURCE,
        Context::Startup => STARTUP,
        Context::Handlers => HANDLERS,
        Context::Proxy => PROXY,
    };
    table.iter().find(|(known, _)| *known == name).map(|(_, check)| *check)
}

impl Check {
    /// What is wrong with a value, as an end of "VALUE is …"; `None` where nothing is.
    pub(crate) fn complaint(self, value: &str) -> Option<String> {
        let listed = |words: &[&str]| (!words.contains(&value)).then(|| format!("is none of {}", words.join(", ")));
        match self {
            Check::Flag => listed(&["yes", "no"]),
            Check::Choice(words) => listed(words),
            Check::Protocol => (!["A", "B", "C", "a", "b", "c"].contains(&value)).then(|| "is none of A, B, C".into()),
            Check::Number(from, to, unit) => out_of_bounds(value, from, to, unit),
            Check::Quorum if QUORUM.contains(&value) => None,
            Check::Quorum => out_of_bounds(value, 1, NODES_MAX, Unit::One),
            Check::Text(max) => (value.len() > max).then(|| format!("has more than {max} bytes")),
            Check::Any => None,
        }
    }

    /// Whether two values say the same.
    pub(crate) fn equal(self, one: &str, other: &str) -> bool {
        match self {
            Check::Number(_, _, unit) => match (number(one, unit), number(other, unit)) {
                (Some(one), Some(other)) => one == other,
                _ => one == other,
            },
            Check::Protocol => one.eq_ignore_ascii_case(other),
            _ => one == other,
        }
    }
}

fn out_of_bounds(value: &str, from: u64, to: u64, unit: Unit) -> Option<String> {
    match number(value, unit) {
        None => Some("is no number".into()),
        Some(number) if number < from => Some(format!("is less than {from}")),
        Some(number) if number > to => Some(format!("is more than {to}")),
        Some(_) => None,
    }
}

/// A number in the option's own unit. A smaller unit than that is rounded up.
pub(crate) fn number(value: &str, unit: Unit) -> Option<u64> {
    let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let written = match &value[digits.len()..] {
        "" => unit as u32,
        "s" => Unit::Sectors as u32,
        "K" | "k" => Unit::KiB as u32,
        "M" | "m" => 20,
        "G" | "g" => 30,
        _ => return None,
    };
    let number: u64 = digits.parse().ok()?;
    match written.checked_sub(unit as u32) {
        Some(up) => number.checked_shl(up).filter(|shifted| shifted >> up == number),
        None => Some(number.div_ceil(1 << (unit as u32 - written))),
    }
}

/// A value of an option that is a number: no name means two numbers.
pub(crate) fn number_of(name: &str, value: &str) -> Option<u64> {
    let contexts = [Context::Net, Context::Disk, Context::PeerDevice, Context::Resource, Context::Startup];
    match contexts.iter().find_map(|context| check_of(*context, name))? {
        Check::Number(_, _, unit) => number(value, unit),
        _ => None,
    }
}

/// Today's names of 8.3's options, in the sections `syncer` and `handlers`.
pub(crate) fn renamed(name: &str) -> &str {
    match name {
        "outdate-peer" => "fence-peer",
        "rate" => "resync-rate",
        "after" => "resync-after",
        other => other,
    }
}

/// A complaint about an option.
pub(crate) fn complain(name: &str, value: &str, complaint: &str) -> String {
    format!("{name} {} {complaint}", shown(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_units() {
        let rows = [
            ("10M", Unit::KiB, Some(10_240)),
            ("250", Unit::KiB, Some(250)),
            ("3s", Unit::KiB, Some(2)),
            ("1K", Unit::One, Some(1024)),
            ("1G", Unit::Sectors, Some(2 << 20)),
            ("", Unit::One, None),
            ("M", Unit::One, None),
            ("1x", Unit::One, None),
            ("1MM", Unit::One, None),
            ("-1", Unit::One, None),
            ("18446744073709551615G", Unit::One, None),
        ];
        for (text, unit, expected) in rows {
            assert_eq!(number(text, unit), expected, "{text}");
        }
    }

    #[test]
    fn equal_is_what_the_kernel_would_be_told() {
        let rate = check_of(Context::PeerDevice, "resync-rate").expect("known");
        assert!(rate.equal("10M", "10240K") && !rate.equal("10M", "10M "));
        assert!(check_of(Context::Net, "protocol").is_some_and(|check| check.equal("c", "C")));
        assert!(check_of(Context::Net, "no-such").is_none());
    }
}
