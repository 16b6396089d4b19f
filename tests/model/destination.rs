//! The destination's program around its machine.

use bascule::handover::{
    Answer, Destination, DestinationAction, DestinationEvent, DestinationSeen, DestinationStage, SourceStage,
};

use crate::handover::{Handover, Step};
use crate::world::{Copy, DestinationAgent, DestinationWork, ToDestination, ToSource, World};

impl Handover {
    /// Everything that can happen to the destination's agent now.
    pub(crate) fn destination_steps(&self, world: &World, steps: &mut Vec<Step>) {
        let side = &world.destination;
        if !side.host.up || matches!(side.stage, DestinationStage::Done(_)) {
            return;
        }
        let Some(agent) = &side.agent else {
            steps.extend(side.host.daemon.then_some(Step::Adopt));
            return;
        };
        match agent.work {
            DestinationWork::Restore | DestinationWork::Listen => {
                let message = world.wire.to_destination.first().is_some() && !world.relocation_cut;
                steps.extend(message.then_some(Step::Hear));
                steps.push(Step::GiveUp);
            }
            DestinationWork::Ask(None) => {
                let there = world.source.host.answers() && !world.relocation_cut;
                steps.extend(there.then_some(Step::Answer));
                steps.push(Step::NoAnswer);
                steps.extend((!world.source.host.up).then_some(Step::Operator));
            }
            DestinationWork::Ask(Some(_)) => steps.push(Step::Hear),
            DestinationWork::Journal(_) | DestinationWork::Close(_) => {
                steps.push(Step::Do);
                self.failing_writes(world, steps);
            }
            DestinationWork::Start | DestinationWork::Discard { .. } => {
                steps.push(Step::Do);
                steps.extend((world.faults_left > 0).then_some(Step::Fail));
            }
            DestinationWork::SendReady | DestinationWork::Report | DestinationWork::Finish => steps.push(Step::Do),
        }
    }

    /// One of them.
    pub(crate) fn destination_step(&self, world: &mut World, step: Step) {
        match step {
            Step::Adopt => self.destination_adopts(world),
            Step::Do => self.destination_does(world),
            Step::Hear => self.destination_hears(world),
            Step::GiveUp => {
                // What cannot be completed is told; a connection that is lost is not.
                if agent(world).work != DestinationWork::Restore {
                    world.wire.close_destination();
                }
                self.tell_destination(world, DestinationEvent::Lost(String::new()));
            }
            Step::Answer => {
                let answer = Some(Answer::Stage(world.source.stage));
                agent(world).work = DestinationWork::Ask(answer);
            }
            Step::NoAnswer => self.destination_was_answered(world, Answer::Unreachable),
            Step::Operator => {
                world.facts.source_declared_dead = true;
                let written = world.destination.sample != world.destination.host.disk;
                self.tell_destination(world, DestinationEvent::PeerDead { written });
            }
            Step::WriteFails { on_disk } => self.destination_cannot_write(world, on_disk),
            Step::Fail => {
                let event = match agent(world).work {
                    DestinationWork::Start => DestinationEvent::NotStarted(String::new()),
                    _ => DestinationEvent::Stuck(String::new()),
                };
                self.tell_destination(world, event);
            }
        }
    }

    fn destination_adopts(&self, world: &mut World) {
        let seen = match world.destination.host.copy {
            Copy::Running => DestinationSeen::Running,
            Copy::Halted => DestinationSeen::Paused,
            Copy::Gone => DestinationSeen::Gone,
        };
        let (machine, action) = Destination::adopt(world.destination.stage, seen);
        go_on(world, machine, action, false);
    }

    fn destination_does(&self, world: &mut World) {
        match agent(world).work {
            DestinationWork::Journal(stage) => {
                world.destination.stage = stage;
                self.tell_destination(world, DestinationEvent::Journaled);
            }
            DestinationWork::SendReady => {
                world.wire.tell_source(ToSource::Ready);
                agent(world).work = DestinationWork::Listen;
            }
            DestinationWork::Start => {
                // It may have been started before whoever did it died.
                if world.destination.host.copy == Copy::Halted {
                    world.start_destination();
                }
                self.tell_destination(world, DestinationEvent::Running);
            }
            DestinationWork::Report => {
                world.wire.tell_source(ToSource::Started);
                self.tell_destination(world, DestinationEvent::Reported);
            }
            DestinationWork::Finish => self.tell_destination(world, DestinationEvent::Finished),
            DestinationWork::Discard { returns } => self.discard(world, returns),
            DestinationWork::Close(ending) => {
                world.destination.stage = DestinationStage::Done(ending);
                leave(world);
            }
            DestinationWork::Restore | DestinationWork::Listen | DestinationWork::Ask(_) => {}
        }
    }

    /// First the copy, then the volumes, then the word to the source; it can be interrupted between the first two.
    fn discard(&self, world: &mut World, returns: bool) {
        if world.destination.host.copy != Copy::Gone {
            world.destination.host.copy = Copy::Gone;
            return;
        }
        world.destination.host.primary = false;
        world.wire.tell_source(if returns { ToSource::Returned } else { ToSource::Failed });
        self.tell_destination(world, DestinationEvent::Discarded);
    }

    fn destination_hears(&self, world: &mut World) {
        if let DestinationWork::Ask(answer) = agent(world).work {
            return self.destination_was_answered(world, answer.unwrap_or(Answer::Unreachable));
        }
        let event = match world.wire.to_destination.pop() {
            Some(ToDestination::Released) if world.promote_destination(self.kind) => {
                world.destination.sample = world.destination.host.disk;
                DestinationEvent::Complete
            }
            Some(ToDestination::Released) => DestinationEvent::Failed(String::new()),
            Some(ToDestination::Held) => DestinationEvent::Held,
            Some(ToDestination::Go) => DestinationEvent::Go,
            None => return,
        };
        self.tell_destination(world, event);
    }

    fn destination_was_answered(&self, world: &mut World, answer: Answer<SourceStage>) {
        world.facts.rolled_forward |= answer == Answer::Stage(SourceStage::Go);
        let replication_up = world.replication_up();
        self.tell_destination(world, DestinationEvent::Asked { answer, replication_up });
    }

    fn destination_cannot_write(&self, world: &mut World, on_disk: bool) {
        let work = agent(world).work;
        match work {
            DestinationWork::Journal(stage) if on_disk => world.destination.stage = stage,
            DestinationWork::Close(ending) if on_disk => world.destination.stage = DestinationStage::Done(ending),
            _ => {}
        }
        match work {
            DestinationWork::Close(_) => leave(world),
            _ => self.tell_destination(world, DestinationEvent::NotJournaled(String::new())),
        }
    }

    fn tell_destination(&self, world: &mut World, event: DestinationEvent) {
        if let Some(agent) = world.destination.agent.take() {
            let (machine, action) = (self.rules.destination)(agent.machine, event);
            go_on(world, machine, action, agent.process);
        }
    }
}

fn go_on(world: &mut World, machine: Destination, action: DestinationAction, process: bool) {
    let work = match action {
        DestinationAction::Journal(stage) => DestinationWork::Journal(stage),
        DestinationAction::SendReady => DestinationWork::SendReady,
        DestinationAction::Ask(_) => DestinationWork::Ask(None),
        DestinationAction::Start => DestinationWork::Start,
        DestinationAction::ReportStarted => DestinationWork::Report,
        DestinationAction::Finish => DestinationWork::Finish,
        DestinationAction::Discard(_) => DestinationWork::Discard { returns: false },
        DestinationAction::DiscardAndReturn(_) => DestinationWork::Discard { returns: true },
        DestinationAction::Close(ending) => DestinationWork::Close(ending),
        DestinationAction::Wait => DestinationWork::Listen,
        DestinationAction::Doubt(_) if matches!(machine, Destination::Asking { .. }) => DestinationWork::Ask(None),
        DestinationAction::Leave(_) | DestinationAction::Doubt(_) => {
            if process {
                world.wire.close_destination();
            }
            return;
        }
    };
    world.destination.agent = Some(DestinationAgent { machine: forget(machine), work, process });
}

/// The agent ends, and with the process its connection.
pub(crate) fn leave(world: &mut World) {
    if world.destination.agent.take().is_some_and(|agent| agent.process) {
        world.wire.close_destination();
    }
}

fn agent(world: &mut World) -> &mut DestinationAgent {
    world.destination.agent.as_mut().expect("somebody works here")
}

/// Reasons are for people: they must not tell states apart.
fn forget(machine: Destination) -> Destination {
    match machine {
        Destination::Noting(_) => Destination::Noting(String::new()),
        Destination::Asking { held, .. } => Destination::Asking { why: String::new(), held },
        Destination::Aborting { promised, .. } => Destination::Aborting { why: String::new(), promised },
        machine => machine,
    }
}
