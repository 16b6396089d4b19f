//! The model: what can happen in a world, and what must hold in each.

use bascule::handover::{
    Destination, DestinationAction, DestinationEvent, DestinationStage, Ending, Source, SourceAction, SourceEvent,
    SourceStage,
};
use bascule::protocol::Handover as Kind;
use stateright::{Model, Property};

use crate::world::{Copy, Facts, World};

/// One way to hand over, with this many faults at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Handover {
    pub(crate) kind: Kind,
    pub(crate) rules: Rules,
    pub(crate) faults: u8,
}

/// The machines under test, or what a planted bug makes of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) source: fn(Source, SourceEvent) -> (Source, SourceAction),
    pub(crate) destination: fn(Destination, DestinationEvent) -> (Destination, DestinationAction),
    /// The source compares the counters once more when it has the volumes back.
    pub(crate) looks_again: bool,
}

/// Which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Side {
    Source,
    Destination,
}

/// What an agent does or meets next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// The daemon takes up a journal that nobody holds.
    Adopt,
    /// What it is busy with gets one step further.
    Do,
    /// What has arrived, message or answer, is read.
    Hear,
    /// The connection is lost, or it waits no longer.
    GiveUp,
    /// The other daemon reads its journal for an answer, which is then under way and grows stale.
    Answer,
    /// The other daemon could not be asked.
    NoAnswer,
    /// The operator says that the other host is down, which it is at this moment.
    Operator,
    /// A record could not be written; it may be on disk all the same.
    WriteFails { on_disk: bool },
    /// What it is busy with fails.
    Fail,
}

/// Everything that can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    Source(Step),
    Destination(Step),
    // Faults.
    Kill(Side),
    StopDaemon(Side),
    PowerOff(Side),
    CutRelocation,
    CutReplication,
    // Repairs, whenever.
    StartDaemon(Side),
    PowerOn(Side),
    MendRelocation,
    MendReplication,
    // DRBD and the guest.
    Notice(Side),
    Reconnect,
    Write(Side),
}

impl Model for Handover {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::begin(self.faults)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.closed() {
            return;
        }
        let (mut source, mut destination) = (Vec::new(), Vec::new());
        self.source_steps(world, &mut source);
        self.destination_steps(world, &mut destination);
        actions.extend(source.into_iter().map(Action::Source));
        actions.extend(destination.into_iter().map(Action::Destination));
        if world.faults_left > 0 {
            world.faults(actions);
        }
        world.repairs(actions);
        world.drbd(actions);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        self.act(&mut next, action);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Handover>> {
        vec![
            Property::always("I1: one copy runs", |_, world: &World| world.running() < 2),
            Property::always("I2: the source resumes after GO by RETURNED alone", |_, world: &World| {
                !world.facts.wrongs.usurped && world.return_is_founded()
            }),
            Property::always("I2: the destination starts after GO alone", |_, world: &World| {
                !world.facts.wrongs.premature
            }),
            Property::always("I3: everything settles", Handover::settles),
            Property::always("I4: an image fits its disk", |_, world: &World| !world.facts.wrongs.misfit),
            Property::always("I4: no write is forgotten", |_, world: &World| !world.facts.wrongs.forgotten),
            Property::always("I4: only an image that fits no disk is given up", |_, world: &World| {
                !world.facts.wrongs.wasted
            }),
            Property::always("I5: one Primary", |model, world: &World| {
                model.kind == Kind::Dual || !world.link.connected || !world.both_primary()
            }),
            // The ways out that the design knows: a model that never takes one of them proves nothing about it.
            Property::sometimes("moved", |_, world: &World| {
                world.ended(SourceStage::Done(Ending::Moved), DestinationStage::Done(Ending::Moved))
            }),
            Property::sometimes("moved by asking", |_, world: &World| {
                world.facts.rolled_forward && world.destination.stage == DestinationStage::Done(Ending::Moved)
            }),
            Property::sometimes("returned before GO", |_, world: &World| {
                let ended = world.ended(SourceStage::Done(Ending::Returned), DestinationStage::Done(Ending::Returned));
                ended && !world.facts.go_journaled && world.running() == 1
            }),
            Property::sometimes("returned by the destination", |_, world: &World| {
                let ended = world.ended(SourceStage::Done(Ending::Returned), DestinationStage::Done(Ending::Returned));
                ended && world.facts.go_journaled && world.running() == 1
            }),
            Property::sometimes("returned by the link's word", |_, world: &World| {
                world.ended(SourceStage::Done(Ending::Returned), DestinationStage::Owned) && world.facts.witnessed
            }),
            Property::sometimes("returned by the operator's word", |_, world: &World| {
                let Facts { witnessed, destination_declared_dead, .. } = world.facts;
                let ended = world.ended(SourceStage::Done(Ending::Returned), DestinationStage::Owned);
                ended && destination_declared_dead && !witnessed
            }),
            Property::sometimes("started by the operator's word", |_, world: &World| {
                world.facts.source_declared_dead && world.destination.host.copy == Copy::Running
            }),
            Property::sometimes("only a cold start is safe", |_, world: &World| {
                world.facts.buried && world.ended(SourceStage::Done(Ending::Lost), DestinationStage::Done(Ending::Lost))
            }),
            Property::sometimes("a human must speak", |_, world: &World| world.facts.told),
        ]
    }
}

impl Handover {
    pub(crate) fn act(&self, world: &mut World, action: Action) {
        world.faults_left -= u8::from(action.is_fault());
        match action {
            Action::Source(step) => self.source_step(world, step),
            Action::Destination(step) => self.destination_step(world, step),
            other => world.change(other),
        }
    }

    pub(crate) fn failing_writes(&self, world: &World, steps: &mut Vec<Step>) {
        if world.faults_left > 0 {
            steps.extend([true, false].map(|on_disk| Step::WriteFails { on_disk }));
        }
    }
}

impl Action {
    fn is_fault(self) -> bool {
        match self {
            Action::Source(step) | Action::Destination(step) => matches!(step, Step::WriteFails { .. } | Step::Fail),
            Action::Kill(_) | Action::StopDaemon(_) | Action::PowerOff(_) => true,
            Action::CutRelocation | Action::CutReplication => true,
            _ => false,
        }
    }
}
