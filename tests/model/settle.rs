//! Liveness (I3): from any state, once both hosts, daemons and links are back and nothing more fails, both journals are
//! closed and exactly one copy runs, or none and a host's loss of power explains it, or a human was told so.
//!
//! It is tried by one fair run from the state: the repairs, then both ends in turn, each doing what it is busy with; who
//! waits for what cannot come gives up.

use bascule::handover::{DestinationStage, SourceStage};

use crate::handover::{Action, Handover, Side, Step};
use crate::world::{DestinationWork, SourceWork, World};

/// No end needs more turns.
const TURNS_MAX: usize = 60;

impl Handover {
    pub(crate) fn settles(&self, world: &World) -> bool {
        let mut world = world.clone();
        world.repair();
        for _ in 0..TURNS_MAX {
            if world.settled() {
                return world.running() == 1 || world.running() == 0 && world.loss_is_explained();
            }
            let moved = self.take_turns(&mut world);
            if !moved && !self.wait_is_over(&mut world) {
                return false;
            }
        }
        false
    }

    fn take_turns(&self, world: &mut World) -> bool {
        let steps = [Side::Source, Side::Destination].map(|side| {
            let action = world.turn(side);
            action.into_iter().for_each(|action| self.act(world, action));
            action.is_some()
        });
        if world.can_reconnect() {
            world.reconnect();
        }
        steps.contains(&true)
    }

    fn wait_is_over(&self, world: &mut World) -> bool {
        let source = matches!(&world.source.agent, Some(agent) if agent.work == SourceWork::Listen);
        if source {
            self.act(world, Action::Source(Step::GiveUp));
        }
        let destination = matches!(
            &world.destination.agent,
            Some(agent) if matches!(agent.work, DestinationWork::Listen | DestinationWork::Restore)
        );
        if destination {
            self.act(world, Action::Destination(Step::GiveUp));
        }
        source || destination
    }
}

impl World {
    /// What was told before is to be told again.
    fn repair(&mut self) {
        self.facts.told = false;
        for side in [Side::Source, Side::Destination] {
            let host = self.host_mut(side);
            (host.up, host.daemon) = (true, true);
        }
        (self.relocation_cut, self.link.cut) = (false, false);
        (self.link.source_believes, self.link.destination_believes) = (None, false);
        if self.can_reconnect() {
            self.reconnect();
        }
    }

    fn settled(&self) -> bool {
        let source = self.facts.told || matches!(self.source.stage, SourceStage::Done(_));
        source && matches!(self.destination.stage, DestinationStage::Done(_))
    }

    /// What a side does if nothing goes wrong; nothing while it waits.
    fn turn(&self, side: Side) -> Option<Action> {
        match side {
            Side::Source => self.source_turn().map(Action::Source),
            Side::Destination => self.destination_turn().map(Action::Destination),
        }
    }

    fn source_turn(&self) -> Option<Step> {
        if matches!(self.source.stage, SourceStage::Done(_)) {
            return None;
        }
        let Some(agent) = &self.source.agent else { return Some(Step::Adopt) };
        match agent.work {
            SourceWork::Listen if self.wire.to_source.first().is_some() => Some(Step::Hear),
            SourceWork::Listen => (!self.wire.destination_open).then_some(Step::GiveUp),
            SourceWork::Ask(None) => Some(Step::Answer),
            SourceWork::Ask(Some(_)) => Some(Step::Hear),
            _ => Some(Step::Do),
        }
    }

    fn destination_turn(&self) -> Option<Step> {
        if matches!(self.destination.stage, DestinationStage::Done(_)) {
            return None;
        }
        let Some(agent) = &self.destination.agent else { return Some(Step::Adopt) };
        match agent.work {
            DestinationWork::Listen | DestinationWork::Restore if self.wire.to_destination.first().is_some() => {
                Some(Step::Hear)
            }
            DestinationWork::Listen | DestinationWork::Restore => (!self.wire.source_open).then_some(Step::GiveUp),
            DestinationWork::Ask(None) => Some(Step::Answer),
            DestinationWork::Ask(Some(_)) => Some(Step::Hear),
            _ => Some(Step::Do),
        }
    }
}
