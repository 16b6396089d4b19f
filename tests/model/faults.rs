//! What happens to hosts, links, DRBD and the guest, whatever the machines do.

use crate::handover::{Action, Side};
use crate::world::{Copy, Disk, Host, World};
use crate::{destination, source};

const SIDES: [Side; 2] = [Side::Source, Side::Destination];

impl World {
    pub(crate) fn faults(&self, actions: &mut Vec<Action>) {
        for side in SIDES {
            let host = self.host(side);
            actions.extend(self.has_process(side).then_some(Action::Kill(side)));
            actions.extend(host.daemon.then_some(Action::StopDaemon(side)));
            actions.extend(host.up.then_some(Action::PowerOff(side)));
        }
        actions.extend((!self.relocation_cut).then_some(Action::CutRelocation));
        actions.extend((!self.link.cut).then_some(Action::CutReplication));
    }

    pub(crate) fn repairs(&self, actions: &mut Vec<Action>) {
        for side in SIDES {
            let host = self.host(side);
            actions.extend((!host.up).then_some(Action::PowerOn(side)));
            actions.extend((host.up && !host.daemon).then_some(Action::StartDaemon(side)));
        }
        actions.extend(self.relocation_cut.then_some(Action::MendRelocation));
        actions.extend(self.link.cut.then_some(Action::MendReplication));
    }

    pub(crate) fn drbd(&self, actions: &mut Vec<Action>) {
        actions.extend(self.link.source_believes.is_some().then_some(Action::Notice(Side::Source)));
        actions.extend(self.link.destination_believes.then_some(Action::Notice(Side::Destination)));
        actions.extend(self.can_reconnect().then_some(Action::Reconnect));
        actions.extend(SIDES.into_iter().filter(|side| self.can_write(*side)).map(Action::Write));
    }

    /// Everything but the agents' own steps.
    pub(crate) fn change(&mut self, action: Action) {
        match action {
            Action::Kill(side) => self.leave(side),
            Action::StopDaemon(side) => self.stop_daemon(side),
            Action::PowerOff(side) => self.power_off(side),
            Action::CutRelocation => self.relocation_cut = true,
            Action::CutReplication => {
                self.link.cut = true;
                self.disconnect();
            }
            Action::StartDaemon(side) => self.host_mut(side).daemon = true,
            Action::PowerOn(side) => self.host_mut(side).up = true,
            Action::MendRelocation => self.relocation_cut = false,
            Action::MendReplication => self.link.cut = false,
            Action::Notice(Side::Source) => self.link.source_believes = None,
            Action::Notice(Side::Destination) => self.link.destination_believes = false,
            Action::Reconnect => self.reconnect(),
            Action::Write(side) => self.write(side),
            Action::Source(_) | Action::Destination(_) => {}
        }
    }

    fn has_process(&self, side: Side) -> bool {
        match side {
            Side::Source => self.source.agent.as_ref().is_some_and(|agent| agent.process),
            Side::Destination => self.destination.agent.as_ref().is_some_and(|agent| agent.process),
        }
    }

    fn leave(&mut self, side: Side) {
        match side {
            Side::Source => source::leave(self),
            Side::Destination => destination::leave(self),
        }
    }

    /// What it had adopted is an orphan again.
    fn stop_daemon(&mut self, side: Side) {
        self.host_mut(side).daemon = false;
        if !self.has_process(side) {
            self.leave(side);
        }
    }

    fn power_off(&mut self, side: Side) {
        self.leave(side);
        self.disconnect();
        match side {
            Side::Source => {
                self.facts.source_copy_lost |= self.source.host.copy != Copy::Gone;
                self.link.source_believes = None;
            }
            Side::Destination => {
                self.facts.destination_copy_lost |= self.destination.host.copy == Copy::Running;
                self.link.destination_believes = false;
            }
        }
        let host = self.host_mut(side);
        *host = Host { up: false, daemon: false, primary: false, copy: Copy::Gone, disk: host.disk };
    }

    fn disconnect(&mut self) {
        if std::mem::take(&mut self.link.connected) {
            self.link.source_believes = Some(self.destination.host.primary);
            self.link.destination_believes = true;
        }
    }

    /// DRBD refuses two Primaries, a split brain, and a Primary that a resync would overwrite (drbd_receiver.c, "I shall
    /// become SyncTarget, but I am primary"). Two Primaries of which one wrote nothing heal once it lets go.
    pub(crate) fn can_reconnect(&self) -> bool {
        let (one, other) = (self.source.host, self.destination.host);
        let noticed = self.link.source_believes.is_none() && !self.link.destination_believes;
        let free = !self.link.connected && !self.link.cut && noticed && one.up && other.up;
        let both = one.disk.union(other.disk);
        let (one_behind, other_behind) = (one.disk != both, other.disk != both);
        let overwritten = one.primary && one_behind || other.primary && other_behind;
        let refused = overwritten || one.primary && other.primary || one_behind && other_behind;
        free && !refused
    }

    /// And resynchronises.
    pub(crate) fn reconnect(&mut self) {
        self.link.connected = true;
        let disk = self.source.host.disk.union(self.destination.host.disk);
        (self.source.host.disk, self.destination.host.disk) = (disk, disk);
    }

    /// A write waits until the peer has it, or is known to be gone (protocol C).
    fn can_write(&self, side: Side) -> bool {
        let host = self.host(side);
        let (written, waits) = match side {
            Side::Source => (host.disk.sources, self.link.source_believes.is_some()),
            Side::Destination => (host.disk.destinations, self.link.destination_believes),
        };
        host.copy == Copy::Running && !written && !waits
    }

    fn write(&mut self, side: Side) {
        let write = match side {
            Side::Source => Disk { sources: true, destinations: false },
            Side::Destination => Disk { sources: false, destinations: true },
        };
        let reached = if self.link.connected { SIDES.to_vec() } else { vec![side] };
        for side in reached {
            let host = self.host_mut(side);
            host.disk = host.disk.union(write);
        }
    }

    pub(crate) fn host(&self, side: Side) -> Host {
        match side {
            Side::Source => self.source.host,
            Side::Destination => self.destination.host,
        }
    }

    pub(crate) fn host_mut(&mut self, side: Side) -> &mut Host {
        match side {
            Side::Source => &mut self.source.host,
            Side::Destination => &mut self.destination.host,
        }
    }
}

impl Disk {
    fn union(self, other: Disk) -> Disk {
        Disk { sources: self.sources || other.sources, destinations: self.destinations || other.destinations }
    }
}
