//! DRBD's events on both nodes, followed while something happens: who was Primary when.

use anyhow::ensure;

use super::{LIMIT, Pair};
use crate::node::{Node, Spawned};

const EVENTS: &str = "/run/lab-events";

/// DRBD's events as both nodes see them.
#[derive(Debug)]
pub struct RoleWatch<'a> {
    pair: &'a Pair,
    watchers: [Spawned; 2],
}

/// What the events showed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// How often a node became Primary.
    pub promotions: usize,
    /// How often a node saw itself and its peer Primary at once, as `NODE: EVENT`.
    pub two_primaries: Vec<String>,
}

impl Pair {
    /// Follows DRBD's events on both nodes until [`RoleWatch::end`].
    ///
    /// # Errors
    /// It cannot be started.
    pub fn watch_roles(&self) -> anyhow::Result<RoleWatch<'_>> {
        let start = |node: &Node| node.spawn(&format!("exec drbdsetup events2 all >{EVENTS}"));
        let watch = RoleWatch { pair: self, watchers: [start(self.node(1))?, start(self.node(2))?] };
        for node in self.lab.nodes() {
            node.until("DRBD's events are followed", &format!("[[ $(<{EVENTS}) == *'exists -'* ]]"), LIMIT)?;
        }
        Ok(watch)
    }
}

impl RoleWatch<'_> {
    /// Ends it and says what was seen of one resource.
    ///
    /// # Errors
    /// The events cannot be read.
    pub fn end(self, resource: &str) -> anyhow::Result<Seen> {
        let mut seen = Seen::default();
        for (node, watcher) in self.pair.lab.nodes().iter().zip(self.watchers) {
            watcher.signal("TERM")?;
            watcher.wait(LIMIT)?;
            let events = node.ok(&format!("cat {EVENTS}"))?;
            ensure!(events.contains("exists -"), "{}: no events: {events}", node.name());
            seen.read(&node.name(), resource, &events);
        }
        Ok(seen)
    }
}

impl Seen {
    /// `change resource name:r0 role:Primary …` is the node's own role, `change connection name:r0 … role:Primary` its peer's.
    fn read(&mut self, node: &str, resource: &str, events: &str) {
        let (mut own, mut peer) = (false, false);
        let name = format!("name:{resource}");
        for line in events.lines().filter(|line| line.split(' ').any(|word| word == name)) {
            let Some(role) = line.split(' ').find_map(|word| word.strip_prefix("role:")) else { continue };
            let slot = if line.contains(" resource ") { &mut own } else { &mut peer };
            let primary = role == "Primary";
            self.promotions += usize::from(primary && !*slot && line.starts_with("change resource"));
            *slot = primary;
            if own && peer {
                self.two_primaries.push(format!("{node}: {line}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_primaries_are_seen_in_drbds_events() {
        let events = "exists resource name:r0 role:Secondary suspended:no\n\
                      exists connection name:r0 peer-node-id:0 conn-name:peer connection:Connected role:Primary\n\
                      exists -\n\
                      change resource name:r0 role:Primary suspended:no\n\
                      change connection name:r0 peer-node-id:0 conn-name:peer role:Secondary\n\
                      change resource name:r1 role:Primary suspended:no\n";
        let mut seen = Seen::default();
        seen.read("node1", "r0", events);
        assert_eq!(seen.promotions, 1);
        assert_eq!(seen.two_primaries, ["node1: change resource name:r0 role:Primary suspended:no"]);
    }
}
