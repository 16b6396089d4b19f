//! Options by their names in the files and by their fields in the kernel's messages: for setting them, and for comparing the two.
//!
//! Names, numbers and defaults are drbdsetup's (`xml-help`; linux/drbd.h, linux/drbd_limits.h).

use drbd_conf::{Options, Setting};
use drbd_nl::{Dialect, DiskConf, NetConf, Protocol, Secret};

/// A value that the kernel takes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Flag(bool),
    Number(u32),
    Text(String),
}

/// What an option is in the files.
enum Kind {
    Flag,
    Number,
    Text,
    /// Words, each with its number in the kernel.
    Words(&'static [(&'static str, u32)]),
}

/// An option. Where the files have none, the kernel has `default`.
struct Row<C> {
    name: &'static str,
    kind: Kind,
    default: fn() -> Value,
    get: fn(&C) -> Option<Value>,
    set: fn(&mut C, Value),
    /// The dialect that it is for, if it is for one only.
    only: Option<Dialect>,
}

macro_rules! row {
    ($name:literal, $kind:expr, $variant:ident, $field:ident, $default:expr, $only:expr) => {
        Row {
            name: $name,
            kind: $kind,
            default: || Value::$variant($default),
            get: |conf| conf.$field.clone().map(Value::$variant),
            set: |conf, value| {
                if let Value::$variant(value) = value {
                    conf.$field = Some(value);
                }
            },
            only: $only,
        }
    };
    ($name:literal flag $field:ident $default:expr) => {
        row!($name, Kind::Flag, Flag, $field, $default, None)
    };
    ($name:literal number $field:ident $default:expr) => {
        row!($name, Kind::Number, Number, $field, $default, None)
    };
    ($name:literal number $field:ident $default:expr, $only:ident) => {
        row!($name, Kind::Number, Number, $field, $default, Some(Dialect::$only))
    };
    ($name:literal text $field:ident) => {
        row!($name, Kind::Text, Text, $field, String::new(), None)
    };
    ($name:literal words $words:ident $field:ident $default:expr) => {
        row!($name, Kind::Words($words), Number, $field, $default, None)
    };
    ($name:literal words $words:ident $field:ident $default:expr, $only:ident) => {
        row!($name, Kind::Words($words), Number, $field, $default, Some(Dialect::$only))
    };
}

/// linux/drbd.h, enum drbd_after_sb_p: one list for all policies.
const POLICIES: &[(&str, u32)] = &[
    ("disconnect", 0),
    ("discard-younger-primary", 1),
    ("discard-older-primary", 2),
    ("discard-zero-changes", 3),
    ("discard-least-changes", 4),
    ("discard-local", 5),
    ("discard-remote", 6),
    ("consensus", 7),
    ("discard-secondary", 8),
    ("call-pri-lost-after-sb", 9),
    ("violently-as0p", 10),
];
/// The same list, by its names where the outcome of a resync contradicts the roles.
const CONFLICTS: &[(&str, u32)] =
    &[("disconnect", 0), ("call-pri-lost", 9), ("violently", 10), ("retry-connect", 11), ("auto-discard", 12)];
const CONGESTION: &[(&str, u32)] = &[("block", 0), ("pull-ahead", 1), ("disconnect", 2)];
const FENCING: &[(&str, u32)] = &[("dont-care", 0), ("resource-only", 1), ("resource-and-stonith", 2)];
const IO_ERRORS: &[(&str, u32)] = &[("pass_on", 0), ("call-local-io-error", 1), ("detach", 2)];
const BALANCING: &[(&str, u32)] = &[
    ("prefer-local", 0),
    ("prefer-remote", 1),
    ("round-robin", 2),
    ("least-pending", 3),
    ("when-congested-remote", 4),
    ("32K-striping", 5),
    ("64K-striping", 6),
    ("128K-striping", 7),
    ("256K-striping", 8),
    ("512K-striping", 9),
    ("1M-striping", 10),
];

const NET: &[Row<NetConf>] = &[
    row!("timeout" number timeout 60),
    row!("max-epoch-size" number max_epoch_size 2048),
    row!("connect-int" number connect_int 10),
    row!("ping-int" number ping_int 10),
    row!("ping-timeout" number ping_timeo 5),
    row!("sndbuf-size" number sndbuf_size 0),
    row!("rcvbuf-size" number rcvbuf_size 0),
    row!("ko-count" number ko_count 7),
    row!("max-buffers" number max_buffers_84 2048, V84),
    row!("max-buffers" number max_buffers 2048, V9),
    row!("unplug-watermark" number unplug_watermark_84 128, V84),
    row!("allow-two-primaries" flag two_primaries false),
    row!("cram-hmac-alg" text cram_hmac_alg),
    row!("data-integrity-alg" text integrity_alg),
    row!("csums-alg" text csums_alg),
    row!("verify-alg" text verify_alg),
    row!("after-sb-0pri" words POLICIES after_sb_0p 0),
    row!("after-sb-1pri" words POLICIES after_sb_1p 0),
    row!("after-sb-2pri" words POLICIES after_sb_2p 0),
    row!("always-asbp" flag always_asbp false),
    row!("rr-conflict" words CONFLICTS rr_conflict 0),
    row!("tcp-cork" flag tcp_cork true),
    row!("on-congestion" words CONGESTION on_congestion 0),
    row!("congestion-fill" number cong_fill 0),
    row!("congestion-extents" number cong_extents 1237),
    row!("csums-after-crash-only" flag csums_after_crash_only false),
    row!("use-rle" flag use_rle true),
    row!("socket-check-timeout" number sock_check_timeo 0),
    row!("fencing" words FENCING fencing_policy 0, V9),
];

const DISK: &[Row<DiskConf>] = &[
    row!("on-io-error" words IO_ERRORS on_io_error 2),
    row!("fencing" words FENCING fencing 0, V84),
    row!("disk-barrier" flag disk_barrier false),
    row!("disk-flushes" flag disk_flushes true),
    row!("disk-drain" flag disk_drain true),
    row!("md-flushes" flag md_flushes true),
    row!("disk-timeout" number disk_timeout 0),
    row!("al-updates" flag al_updates true),
    row!("discard-zeroes-if-aligned" flag discard_zeroes_if_aligned true),
    row!("disable-write-same" flag disable_write_same false),
    row!("rs-discard-granularity" number rs_discard_granularity 0),
    row!("read-balancing" words BALANCING read_balancing 0),
];

/// 8.4 has these in the disk's options, 9 in those of a volume and a peer.
const RESYNC: &[Row<DiskConf>] = &[
    row!("resync-rate" number resync_rate 250, V84),
    row!("c-plan-ahead" number c_plan_ahead 20, V84),
    row!("c-delay-target" number c_delay_target 10, V84),
    row!("c-fill-target" number c_fill_target 100, V84),
    row!("c-max-rate" number c_max_rate 102_400, V84),
    row!("c-min-rate" number c_min_rate 250, V84),
];

/// An option that the kernel has otherwise than the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference<'o> {
    /// Its name.
    pub(crate) name: &'static str,
    /// Where the files have it; `None` where they leave it at its default.
    pub(crate) setting: Option<&'o Setting>,
    /// What the files want, as they would write it.
    pub(crate) wanted: String,
    /// What the kernel has, in the same words.
    pub(crate) now: String,
}

/// What the files say of a connection. What they do not say is left out: the kernel has its defaults.
pub(crate) fn net_conf(options: &Options, node: &str, dialect: Dialect) -> NetConf {
    let mut conf = written(NET, options, node, dialect);
    conf.wire_protocol = options.value("protocol").and_then(protocol);
    conf.shared_secret = options.value("shared-secret").map(Secret::new);
    if dialect == Dialect::V9 {
        conf.transport_name = options.value("transport").map(str::to_owned);
        conf.allow_remote_read = options.get("allow-remote-read").map(Setting::is_yes);
    }
    conf
}

/// What the files say of a volume's disk, without the disk itself.
pub(crate) fn disk_conf(disk: &Options, resync: &Options, node: &str, dialect: Dialect) -> DiskConf {
    let mut conf = written(DISK, disk, node, dialect);
    applicable(RESYNC, dialect).for_each(|row| row.write(&mut conf, resync, node));
    conf.disk_size = disk.get("size").and_then(Setting::number);
    // Out of its bounds it is moved into them; the kernel may take less than it is told, so it is not compared.
    let extents = disk.get("al-extents").and_then(Setting::number).map(|extents| extents.clamp(67, 65_534));
    conf.al_extents = extents.and_then(|extents| u32::try_from(extents).ok());
    conf
}

/// Whether [`net_conf`], [`disk_conf`] or `up` itself tells the kernel of an option. What 8.4 has in the disk's options, DRBD 9 has in
/// messages of their own.
pub(crate) fn is_set_here(name: &str, dialect: Dialect) -> bool {
    let also = ["protocol", "shared-secret", "al-extents", "size", "cpu-mask", "on-no-data-accessible"];
    let nine = ["transport", "allow-remote-read"];
    also.contains(&name)
        || (dialect == Dialect::V9 && nine.contains(&name))
        || applicable(NET, dialect).any(|row| row.name == name)
        || applicable(DISK, dialect).chain(applicable(RESYNC, dialect)).any(|row| row.name == name)
}

/// How the kernel's options of a connection differ from the files'. Secrets are compared and not shown.
pub(crate) fn net_differences<'o>(
    options: &'o Options,
    now: &NetConf,
    node: &str,
    dialect: Dialect,
) -> Vec<Difference<'o>> {
    let mut found = differences(NET, options, now, node, dialect);
    let wanted = options.value("protocol").and_then(protocol).unwrap_or(Protocol::C);
    if let Some(has) = now.wire_protocol.filter(|has| *has != wanted) {
        let setting = options.get("protocol");
        found.push(Difference { name: "protocol", setting, wanted: wanted.to_string(), now: has.to_string() });
    }
    let secret = options.get("shared-secret").filter(|_| now.cram_hmac_alg.is_some());
    if let (Some(setting), Some(has)) = (secret, &now.shared_secret)
        && has.expose() != setting.value
    {
        let [wanted, has] = ["one secret", "another"].map(str::to_owned);
        found.push(Difference { name: "shared-secret", setting: Some(setting), wanted, now: has });
    }
    found
}

/// The same for a volume's disk.
pub(crate) fn disk_differences<'o>(
    disk: &'o Options,
    resync: &'o Options,
    now: &DiskConf,
    node: &str,
    dialect: Dialect,
) -> Vec<Difference<'o>> {
    let mut found = differences(DISK, disk, now, node, dialect);
    found.extend(differences(RESYNC, resync, now, node, dialect));
    found
}

fn protocol(value: &str) -> Option<Protocol> {
    match value {
        "A" | "a" => Some(Protocol::A),
        "B" | "b" => Some(Protocol::B),
        "C" | "c" => Some(Protocol::C),
        _ => None,
    }
}

fn applicable<C>(rows: &'static [Row<C>], dialect: Dialect) -> impl Iterator<Item = &'static Row<C>> {
    rows.iter().filter(move |row| row.only.is_none_or(|only| only == dialect))
}

fn written<C: Default>(rows: &'static [Row<C>], options: &Options, node: &str, dialect: Dialect) -> C {
    let mut conf = C::default();
    applicable(rows, dialect).for_each(|row| row.write(&mut conf, options, node));
    conf
}

fn differences<'o, C>(
    rows: &'static [Row<C>],
    options: &'o Options,
    now: &C,
    node: &str,
    dialect: Dialect,
) -> Vec<Difference<'o>> {
    let differing = applicable(rows, dialect).filter_map(|row| {
        let setting = options.get(row.name);
        let wanted = setting.map_or_else(|| Some((row.default)()), |setting| row.value(setting, node))?;
        let has = (row.get)(now)?;
        let differs = has != wanted;
        differs.then(|| Difference { name: row.name, setting, wanted: row.shown(&wanted), now: row.shown(&has) })
    });
    differing.collect()
}

impl<C> Row<C> {
    fn write(&self, conf: &mut C, options: &Options, node: &str) {
        if let Some(value) = options.get(self.name).and_then(|setting| self.value(setting, node)) {
            (self.set)(conf, value);
        }
    }

    /// What a setting is for the kernel; `None` for a word that is not known.
    fn value(&self, setting: &Setting, node: &str) -> Option<Value> {
        match self.kind {
            Kind::Flag => Some(Value::Flag(setting.is_yes())),
            Kind::Text => Some(Value::Text(setting.value.clone())),
            Kind::Number => setting.number().and_then(|number| u32::try_from(number).ok()).map(Value::Number),
            Kind::Words(words) => {
                let word = meant(&setting.value, node);
                words.iter().find(|(known, _)| *known == word).map(|(_, number)| Value::Number(*number))
            }
        }
    }

    fn shown(&self, value: &Value) -> String {
        match (value, &self.kind) {
            (Value::Flag(flag), _) => if *flag { "yes" } else { "no" }.to_owned(),
            (Value::Text(text), _) if text.is_empty() => "none".to_owned(),
            (Value::Text(text), _) => text.clone(),
            (Value::Number(number), Kind::Words(words)) => {
                let word = words.iter().find(|(_, known)| known == number);
                word.map_or_else(|| number.to_string(), |(word, _)| (*word).to_owned())
            }
            (Value::Number(number), _) => number.to_string(),
        }
    }
}

/// 8.x can name the node whose changes go.
fn meant<'v>(word: &'v str, node: &str) -> &'v str {
    match word.strip_prefix("discard-node-") {
        Some(name) if name == node => "discard-local",
        Some(_) => "discard-remote",
        None => word,
    }
}

#[cfg(test)]
mod tests {
    use drbd_conf::{Memory, Node, read};

    use super::*;

    fn net(text: &str) -> Options {
        let text = format!(
            "resource r {{ net {{ {text} }} device minor 0; disk /dev/a; on a {{ address 10.0.0.1:1; }} on b {{ address 10.0.0.2:1; }} }}"
        );
        let config = read("f".as_ref(), &Node::default(), &Memory::one("f", text)).expect("a configuration");
        config.resources[0].sections.net.clone()
    }

    #[test]
    fn what_is_set_from_a_file_does_not_differ_from_it() {
        let options =
            net("protocol A; timeout 70; allow-two-primaries; after-sb-1pri violently-as0p; congestion-fill 1M; \
             max-buffers 8K; shared-secret x; cram-hmac-alg sha1; no-tcp-cork; rr-conflict auto-discard;");
        for dialect in [Dialect::V84, Dialect::V9] {
            let conf = net_conf(&options, "a", dialect);
            assert_eq!((conf.timeout, conf.cong_fill, conf.tcp_cork), (Some(70), Some(2048), Some(false)));
            assert_eq!(conf.max_buffers_84.or(conf.max_buffers), Some(8192));
            assert_eq!(net_differences(&options, &conf, "a", dialect), []);
        }
    }

    #[test]
    fn what_differs_is_told_in_the_files_words() {
        let options = net("after-sb-0pri discard-node-b; timeout 70; shared-secret x; cram-hmac-alg sha1;");
        let now = NetConf {
            after_sb_0p: Some(5),
            timeout: Some(60),
            two_primaries: Some(true),
            ping_int: Some(10),
            cram_hmac_alg: Some("sha1".into()),
            shared_secret: Some(Secret::new("y")),
            wire_protocol: Some(Protocol::B),
            ..NetConf::default()
        };
        let found = net_differences(&options, &now, "a", Dialect::V84);
        let shown: Vec<_> = found.iter().map(|one| (one.name, one.wanted.as_str(), one.now.as_str())).collect();
        assert_eq!(
            shown,
            [
                ("timeout", "70", "60"),
                ("allow-two-primaries", "no", "yes"),
                ("after-sb-0pri", "discard-remote", "discard-local"),
                ("protocol", "C", "B"),
                ("shared-secret", "one secret", "another"),
            ]
        );
    }
}
