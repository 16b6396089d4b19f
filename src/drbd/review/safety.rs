//! What the files have for good and is a danger to domains that move, whatever the kernel has now.

use drbd_conf::{Connection, Setting};

use super::{Review, set_to};

/// What DRBD does by itself after a split brain and costs writes: an option, and the values with which it does.
const DISCARDS: &[(&str, &[&str])] = &[
    (
        "after-sb-0pri",
        &[
            "discard-younger-primary",
            "discard-older-primary",
            "discard-least-changes",
            "discard-local",
            "discard-remote",
        ],
    ),
    ("after-sb-1pri", &["consensus", "discard-secondary", "violently-as0p"]),
    ("after-sb-2pri", &["violently-as0p"]),
    ("rr-conflict", &["violently", "auto-discard"]),
];

/// Handlers that act while a domain moves, and what they then do.
const HANDLERS: &[(&str, &str)] = &[
    (
        "fence-peer",
        "is started on a Primary that loses its peer, and when a host becomes Primary without one; the handover waits for it",
    ),
    ("unfence-peer", "is started after each resync"),
    (
        "split-brain",
        "is started when both hosts have written; after a handover with two Primaries that lost its link, too",
    ),
    ("initial-split-brain", "is started when both hosts have written, before DRBD has tried to heal it"),
    (
        "before-resync-target",
        "is started before each resync on the host that receives; if it fails, the connection is cut",
    ),
    (
        "before-resync-source",
        "is started before each resync on the host that sends; if it fails, the connection is cut",
    ),
    ("after-resync-target", "is started after each resync on the host that received"),
    (
        "pri-on-incon-degr",
        "is started on a Primary whose data are bad, as after a lost peer; most of these reboot the host",
    ),
    ("pri-lost", "is started on a Primary whose data should be overwritten; most of these reboot the host"),
    ("pri-lost-after-sb", "is started on a Primary that loses a split brain; most of these reboot the host"),
    ("local-io-error", "is started when the disk below fails; most of these stop the host"),
    ("quorum-lost", "is started on a Primary that has lost its quorum"),
    ("disconnected", "is started when a connection is lost"),
];

impl Review<'_> {
    pub(crate) fn judge_connection(&mut self, connection: &Connection, peer: &str) {
        let name = self.resource.name.clone();
        if let Some(setting) = set_to(connection, "allow-two-primaries", &["yes"]) {
            let found =
                format!("{name} may have two Primaries for good ({}): DRBD refuses no second start", setting.place);
            let remedy = format!("Migrations need it no longer: remove allow-two-primaries {}", self.adjust());
            self.warn("two-primaries-permanent", found, remedy);
        }
        if let Some(setting) = set_to(connection, "protocol", &["A", "a", "B", "b"]) {
            let found = format!(
                "{name} uses protocol {} with {peer} ({}): a host that dies takes writes with it that a domain took for done",
                setting.value, setting.place
            );
            self.warn("protocol", found, format!("Write protocol C {}", self.adjust()));
        }
        for (option, values) in DISCARDS {
            let named = connection.net.get(option).filter(|setting| setting.value.starts_with("discard-node-"));
            if let Some(setting) = named.or_else(|| set_to(connection, option, values)) {
                self.tell_discard(setting);
            }
        }
        self.judge_callers(connection);
        self.judge_fencing(connection.net.get("fencing"));
    }

    fn tell_discard(&mut self, setting: &Setting) {
        let found = format!(
            "{} discards writes by itself after a split brain: {} {} ({})",
            self.resource.name, setting.name, setting.value, setting.place
        );
        let remedy = format!(
            "bascule recover heals with the data of the copy that ran: write {} disconnect {}",
            setting.name,
            self.adjust()
        );
        self.warn("split-brain-policy", found, remedy);
    }

    /// Policies that leave it to a program, which usually ends the host.
    fn judge_callers(&mut self, connection: &Connection) {
        for (option, value) in [
            ("after-sb-1pri", "call-pri-lost-after-sb"),
            ("after-sb-2pri", "call-pri-lost-after-sb"),
            ("rr-conflict", "call-pri-lost"),
        ] {
            let Some(setting) = set_to(connection, option, &[value]) else { continue };
            let found = format!("{} lets a program decide: {option} {value} ({})", self.resource.name, setting.place);
            self.warn("split-brain-policy", found, format!("Write {option} disconnect {}", self.adjust()));
        }
    }

    /// 8.4 has the policy in `disk`.
    pub(crate) fn judge_disks(&mut self) {
        let volumes = self.resource.mine().into_iter().flat_map(|host| &host.volumes);
        let mut policies: Vec<&Setting> = volumes.filter_map(|volume| volume.disk_options.get("fencing")).collect();
        policies.dedup_by(|one, other| one.place == other.place);
        policies.into_iter().for_each(|setting| self.judge_fencing(Some(setting)));
    }

    fn judge_fencing(&mut self, setting: Option<&Setting>) {
        let Some(setting) = setting.filter(|setting| setting.value != "dont-care") else { return };
        let name = &self.resource.name;
        let (found, remedy) = match self.resource.sections.handlers.get("fence-peer") {
            None => (
                format!(
                    "{name} has fencing {} ({}) and no handler fence-peer: a Primary that loses its peer stands still or stays alone",
                    setting.value, setting.place
                ),
                format!("Write a handler fence-peer, or fencing dont-care, {}", self.adjust()),
            ),
            Some(handler) => (
                format!(
                    "{name} has fencing {} ({}): when the link is lost while a domain moves, {} ({}) acts on the other host",
                    setting.value, setting.place, handler.value, handler.place
                ),
                "Make sure that it leaves the host alone that a domain moves to, or hold it while domains move"
                    .to_owned(),
            ),
        };
        self.warn("fencing", found, remedy);
    }

    pub(crate) fn judge_handlers(&mut self) {
        let resource = self.resource;
        for (name, what) in HANDLERS {
            let Some(setting) = resource.sections.handlers.get(name) else { continue };
            let found = format!("{}: the handler {name} ({}) {what}", resource.name, setting.place);
            self.warn("handler", found, "See that it does nothing to a host that a domain moves from or to");
        }
    }
}
