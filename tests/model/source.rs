//! The source's program around its machine: what each action does to the world, and what can come of it.

use bascule::handover::{Answer, DestinationStage, Source, SourceAction, SourceEvent, SourceSeen, SourceStage};
use bascule::protocol::Handover as Kind;

use crate::handover::{Handover, Step};
use crate::world::{Copy, SourceAgent, SourceWork, ToDestination, ToSource, World};

impl Handover {
    /// Everything that can happen to the source's agent now.
    pub(crate) fn source_steps(&self, world: &World, steps: &mut Vec<Step>) {
        let side = &world.source;
        if !side.host.up || matches!(side.stage, SourceStage::Done(_)) {
            return;
        }
        let Some(agent) = &side.agent else {
            steps.extend(side.host.daemon.then_some(Step::Adopt));
            return;
        };
        match agent.work {
            SourceWork::Listen => {
                let message = world.wire.to_source.first().is_some() && !world.relocation_cut;
                steps.extend(message.then_some(Step::Hear));
                steps.push(Step::GiveUp);
            }
            SourceWork::Ask(None) => {
                let there = world.destination.host.answers() && !world.relocation_cut;
                steps.extend(there.then_some(Step::Answer));
                steps.push(Step::NoAnswer);
                steps.extend((!world.destination.host.up).then_some(Step::Operator));
            }
            SourceWork::Ask(Some(_)) => steps.push(Step::Hear),
            SourceWork::Journal(_) | SourceWork::Close(_) => {
                steps.push(Step::Do);
                self.failing_writes(world, steps);
            }
            SourceWork::Release => steps.extend([Step::Do, Step::GiveUp]),
            SourceWork::TakeBack | SourceWork::Retire => {
                steps.push(Step::Do);
                steps.extend((world.faults_left > 0).then_some(Step::Fail));
            }
            SourceWork::Verify | SourceWork::SendGo => steps.push(Step::Do),
        }
    }

    /// One of them.
    pub(crate) fn source_step(&self, world: &mut World, step: Step) {
        match step {
            Step::Adopt => self.source_adopts(world),
            Step::Do => self.source_does(world),
            Step::Hear => self.source_hears(world),
            Step::GiveUp => {
                world.wire.close_source();
                self.tell_source(world, SourceEvent::Lost(String::new()));
            }
            Step::Answer => {
                let answer = Some(Answer::Stage(world.destination.stage));
                agent(world).work = SourceWork::Ask(answer);
            }
            Step::NoAnswer => self.source_was_answered(world, Answer::Unreachable),
            Step::Operator => {
                world.facts.destination_declared_dead = true;
                let witness = world.witness();
                self.tell_source(world, SourceEvent::PeerDead { witness });
            }
            Step::WriteFails { on_disk } => self.source_cannot_write(world, on_disk),
            Step::Fail => self.tell_source(world, SourceEvent::Stuck(String::new())),
        }
    }

    fn source_adopts(&self, world: &mut World) {
        let seen = match world.source.host.copy {
            Copy::Running => SourceSeen::Running,
            Copy::Halted => SourceSeen::Suspended,
            Copy::Gone => SourceSeen::Gone,
        };
        let (machine, action) = Source::adopt(world.source.stage, seen);
        go_on(world, machine, action, false);
    }

    fn source_does(&self, world: &mut World) {
        match agent(world).work {
            SourceWork::Release => self.release(world),
            SourceWork::Verify => {
                let witness = world.witness();
                let good = witness.connected && witness.peer_primary && !witness.written;
                let event = if good { SourceEvent::Verified } else { SourceEvent::Refuted(String::new()) };
                self.tell_source(world, event);
            }
            SourceWork::Journal(stage) => {
                write(world, stage);
                self.tell_source(world, SourceEvent::Journaled);
            }
            SourceWork::SendGo => {
                world.wire.tell_destination(ToDestination::Go);
                agent(world).work = SourceWork::Listen;
            }
            SourceWork::TakeBack => self.take_back(world),
            SourceWork::Retire => {
                world.source.host.copy = Copy::Gone;
                world.source.host.primary = false;
                self.tell_source(world, SourceEvent::Retired);
            }
            SourceWork::Close(ending) => {
                write(world, SourceStage::Done(ending));
                leave(world);
            }
            SourceWork::Listen | SourceWork::Ask(_) => {}
        }
    }

    /// Step 4 of the story; the record is durable before anything is let go.
    fn release(&self, world: &mut World) {
        if world.source.stage == SourceStage::Open {
            return write(world, SourceStage::Released);
        }
        world.source.host.primary = self.kind == Kind::Dual;
        world.wire.tell_destination(ToDestination::Released);
        agent(world).work = SourceWork::Listen;
    }

    /// First the volumes, then the guest; it can be interrupted between the two.
    fn take_back(&self, world: &mut World) {
        match world.source.host.copy {
            Copy::Gone => self.tell_source(world, SourceEvent::Gone),
            Copy::Running => self.tell_source(world, SourceEvent::TakenBack),
            Copy::Halted if world.source.host.primary => match self.rules.looks_again && world.witness().written {
                true => self.tell_source(world, SourceEvent::Written),
                false => world.resume_source(),
            },
            Copy::Halted => {
                if !world.promote_source() {
                    self.tell_source(world, SourceEvent::Stuck(String::new()));
                }
            }
        }
    }

    fn source_hears(&self, world: &mut World) {
        if let SourceWork::Ask(answer) = agent(world).work {
            return self.source_was_answered(world, answer.unwrap_or(Answer::Unreachable));
        }
        let event = match world.wire.to_source.pop() {
            Some(ToSource::Ready) => SourceEvent::Ready,
            Some(ToSource::Started) => SourceEvent::Started,
            Some(ToSource::Returned) => SourceEvent::Returned(String::new()),
            Some(ToSource::Failed) => SourceEvent::Failed(String::new()),
            None => return,
        };
        self.tell_source(world, event);
    }

    fn source_was_answered(&self, world: &mut World, answer: Answer<DestinationStage>) {
        let witness = world.witness();
        world.facts.witnessed |= witness.connected && !witness.peer_primary && !witness.written;
        self.tell_source(world, SourceEvent::Asked { answer, witness });
    }

    fn source_cannot_write(&self, world: &mut World, on_disk: bool) {
        let work = agent(world).work;
        match work {
            SourceWork::Journal(stage) if on_disk => write(world, stage),
            SourceWork::Close(ending) if on_disk => write(world, SourceStage::Done(ending)),
            _ => {}
        }
        match work {
            SourceWork::Close(_) => leave(world),
            _ => self.tell_source(world, SourceEvent::NotJournaled(String::new())),
        }
    }

    fn tell_source(&self, world: &mut World, event: SourceEvent) {
        if let Some(agent) = world.source.agent.take() {
            let (machine, action) = (self.rules.source)(agent.machine, event);
            go_on(world, machine, action, agent.process);
        }
    }
}

fn write(world: &mut World, stage: SourceStage) {
    world.source.stage = stage;
    world.facts.go_journaled |= stage == SourceStage::Go;
}

fn go_on(world: &mut World, machine: Source, action: SourceAction, process: bool) {
    let work = match action {
        SourceAction::Verify => {
            world.wire.tell_destination(ToDestination::Held);
            SourceWork::Verify
        }
        SourceAction::Journal(stage) => SourceWork::Journal(stage),
        SourceAction::SendGo => SourceWork::SendGo,
        SourceAction::Ask(_) => SourceWork::Ask(None),
        SourceAction::Doubt(_) if matches!(machine, Source::Asking(_)) => {
            world.facts.told = true;
            SourceWork::Ask(None)
        }
        SourceAction::TakeBack(_) => {
            if process {
                world.wire.close_source();
            }
            SourceWork::TakeBack
        }
        SourceAction::Retire => SourceWork::Retire,
        SourceAction::Bury(_) => {
            world.facts.buried = true;
            world.facts.wrongs.wasted |= !world.witness().written;
            SourceWork::Retire
        }
        SourceAction::Close(ending) => SourceWork::Close(ending),
        SourceAction::Wait => SourceWork::Listen,
        SourceAction::Leave(_) | SourceAction::Doubt(_) => {
            world.facts.told |= matches!(action, SourceAction::Doubt(_));
            if process {
                world.wire.close_source();
            }
            return;
        }
    };
    world.source.agent = Some(SourceAgent { machine: forget(machine), work, process });
}

/// The agent ends, and with the process its connection.
pub(crate) fn leave(world: &mut World) {
    if world.source.agent.take().is_some_and(|agent| agent.process) {
        world.wire.close_source();
    }
}

fn agent(world: &mut World) -> &mut SourceAgent {
    world.source.agent.as_mut().expect("somebody works here")
}

/// Reasons are for people: they must not tell states apart.
fn forget(machine: Source) -> Source {
    match machine {
        Source::Asking(_) => Source::Asking(String::new()),
        Source::Returning(_) => Source::Returning(String::new()),
        machine => machine,
    }
}
