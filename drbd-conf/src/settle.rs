//! What follows from the files once all are read (drbd-utils, user/v9/drbdadm_postparse.c): volumes that hosts share, resources on top
//! of others, connections that are not written, which host is ours, and what is inherited.
//!
//! Each step leaves out resources in which an earlier one found a mistake: what follows from that would be told as another.

mod ends;
mod inherit;
mod judge;
mod stacked;
mod volumes;

use std::collections::{HashMap, HashSet};
use std::mem;

use crate::model::{Config, Host, HostKind, Node, Resource};
use crate::place::{Mistakes, Place};
use crate::reader::{Claims, claim};
use crate::volume::same_host;

/// The most settings, connections and volumes that inheritance may make, so that a small file does not become a large configuration.
const PARTS_MAX: usize = 1 << 18;

pub(crate) struct Settler<'n> {
    pub(crate) node: &'n Node,
    pub(crate) config: Config,
    pub(crate) claims: Claims,
    pub(crate) mistakes: Mistakes,
    pub(crate) remarks: Mistakes,
    /// Resources with mistakes, of which nothing more is said.
    pub(crate) broken: HashSet<String>,
    parts_left: usize,
    /// It has been told that there are too many parts.
    too_large: bool,
    /// The resource of this step is one of DRBD 9's.
    of_nine: bool,
}

impl<'n> Settler<'n> {
    pub(crate) fn new(
        node: &'n Node,
        config: Config,
        claims: Claims,
        mistakes: Mistakes,
        remarks: Mistakes,
        broken: HashSet<String>,
    ) -> Settler<'n> {
        Settler {
            node,
            config,
            claims,
            mistakes,
            remarks,
            broken,
            parts_left: PARTS_MAX,
            too_large: false,
            of_nine: true,
        }
    }

    pub(crate) fn run(mut self) -> Result<Config, Mistakes> {
        self.each(Settler::share_volumes);
        self.name_stacked();
        self.each(Settler::join_hosts);
        self.find_conflicts();
        self.find_us();
        self.lay_stacked();
        self.each(Settler::complete_peer_devices);
        self.each(Settler::inherit);
        self.judge();
        match self.mistakes.told.is_empty() {
            true => {
                self.config.remarks = self.remarks.told;
                Ok(self.config)
            }
            false => Err(self.mistakes),
        }
    }

    /// Takes a step with each resource that is whole so far.
    fn each(&mut self, step: fn(&mut Settler<'n>, &mut Resource)) {
        let mut resources = mem::take(&mut self.config.resources);
        for resource in &mut resources {
            if self.broken.contains(&resource.name) {
                continue;
            }
            let before = self.found();
            step(self, resource);
            if self.found() != before {
                self.broken.insert(resource.name.clone());
            }
        }
        self.config.resources = resources;
    }

    fn found(&self) -> usize {
        self.mistakes.told.len() + self.mistakes.untold
    }

    pub(crate) fn claim(&mut self, what: &str, key: String, place: &Place) {
        claim(&mut self.claims, &mut self.mistakes, what, key, place);
    }

    /// Whether there may be so many more parts; it is told once when there may not.
    pub(crate) fn afford(&mut self, parts: usize, place: &Place) -> bool {
        match self.parts_left.checked_sub(parts) {
            Some(left) => {
                self.parts_left = left;
                true
            }
            None if !mem::replace(&mut self.too_large, true) => {
                self.mistakes.add(place, format!("the configuration has more than {PARTS_MAX} settings"));
                false
            }
            None => false,
        }
    }

    /// Which host of each resource is this one; of those on top of others when those are known.
    fn find_us(&mut self) {
        for stacked in [false, true] {
            let ours: HashMap<String, bool> = match stacked {
                true => self.config.resources.iter().map(|below| (below.name.clone(), below.me.is_some())).collect(),
                false => HashMap::new(),
            };
            let mut resources = mem::take(&mut self.config.resources);
            for resource in resources.iter_mut().filter(|resource| is_stacked(resource) == stacked) {
                self.find_us_in(resource, &ours);
            }
            self.config.resources = resources;
        }
    }

    fn find_us_in(&mut self, resource: &mut Resource, ours: &HashMap<String, bool>) {
        for (index, host) in resource.hosts.iter().enumerate() {
            if !self.is_us(host, ours) {
                continue;
            }
            if let Some(first) = resource.me {
                let first = &resource.hosts[first].place;
                self.mistakes.add(&host.place, format!("this host is there already, at {first}"));
            }
            resource.me = Some(index);
        }
    }

    fn is_us(&self, host: &Host, ours: &HashMap<String, bool>) -> bool {
        match &host.kind {
            HostKind::Stacked(lower) => ours.get(lower).copied().unwrap_or(false),
            HostKind::On => host.names.iter().any(|name| same_host(name, &self.node.name)),
            HostKind::Floating => host.address.as_ref().is_some_and(|address| {
                let ip = address.ip.parse().ok();
                address.ip == self.node.name || ip.is_some_and(|ip| self.node.addresses.contains(&ip))
            }),
        }
    }
}

/// A host of it lies on top of another resource.
pub(crate) fn is_stacked(resource: &Resource) -> bool {
    resource.hosts.iter().any(|host| matches!(host.kind, HostKind::Stacked(_)))
}
