//! The destination's machine, and what is true of its copy and its journal.

use bascule::handover::{
    Answer, Destination, DestinationAction as Action, DestinationEvent as Event, DestinationSeen, DestinationStage,
    Ending, SourceStage,
};

use super::{bit, pick, why};

pub(super) fn run(events: impl Iterator<Item = (u8, u8)>) {
    let mut end = End::new();
    for (kind, particulars) in events {
        end.meet(kind, particulars);
    }
}

const ANSWERS: [Answer<SourceStage>; 9] = [
    Answer::Unknown,
    Answer::Unreachable,
    Answer::Stage(SourceStage::Open),
    Answer::Stage(SourceStage::Released),
    Answer::Stage(SourceStage::Go),
    Answer::Stage(SourceStage::Returned),
    Answer::Stage(SourceStage::Done(Ending::Moved)),
    Answer::Stage(SourceStage::Done(Ending::Returned)),
    Answer::Stage(SourceStage::Done(Ending::Lost)),
];

/// The program around the machine.
struct End {
    machine: Destination,
    /// What it is doing.
    doing: Action,
    /// The last durable record.
    stage: DestinationStage,
    copy: DestinationSeen,
    /// The source has been heard to hold the domain after READY.
    held: bool,
}

impl End {
    fn new() -> End {
        End {
            machine: Destination::Restoring,
            doing: Action::Wait,
            stage: DestinationStage::Open,
            copy: DestinationSeen::Paused,
            held: false,
        }
    }

    fn meet(&mut self, kind: u8, particulars: u8) {
        if kind == 0 {
            return self.die(particulars);
        }
        let event = self.event(kind, particulars);
        if matches!((&event, self.copy), (Event::NotStarted(_), DestinationSeen::Running)) {
            return; // The hand looks before it says so.
        }
        self.comes_true(&event, particulars);
        let (machine, action) = self.machine.clone().step(event.clone());
        self.machine = machine;
        self.check(&action, Some(&event));
    }

    fn event(&self, kind: u8, particulars: u8) -> Event {
        match kind % 17 {
            0 => Event::Complete,
            1 => Event::Failed(why()),
            2 => Event::Held,
            3 => Event::Go,
            4 => Event::Lost(why()),
            5 | 6 => Event::Journaled,
            7 => Event::NotJournaled(why()),
            8 | 9 => Event::Asked { answer: pick(&ANSWERS, particulars & 15), replication_up: bit(particulars, 4) },
            10 => Event::PeerDead { written: bit(particulars, 0) },
            11 => Event::Running,
            12 => Event::NotStarted(why()),
            13 => Event::Reported,
            14 => Event::Finished,
            15 => Event::Discarded,
            _ => Event::Stuck(why()),
        }
    }

    /// What the hands report is so, where it is what they were told to do.
    fn comes_true(&mut self, event: &Event, particulars: u8) {
        match (&self.doing, event) {
            (Action::Journal(stage), Event::Journaled) => self.stage = *stage,
            (Action::Journal(stage), Event::NotJournaled(_)) if bit(particulars, 0) => self.stage = *stage,
            (Action::Start, Event::Running) => self.copy = DestinationSeen::Running,
            (Action::Discard(_) | Action::DiscardAndReturn(_), Event::Discarded) => self.copy = DestinationSeen::Gone,
            (Action::SendReady | Action::Wait, Event::Held) => self.held |= self.stage == DestinationStage::Ready,
            _ => {}
        }
    }

    /// The process ends, or its host, and somebody adopts the journal. What was being done may have been done.
    fn die(&mut self, particulars: u8) {
        match (&self.doing, bit(particulars, 0)) {
            (_, true) if bit(particulars, 1) => self.copy = DestinationSeen::Gone,
            (Action::Start, true) => self.copy = DestinationSeen::Running,
            (Action::Discard(_) | Action::DiscardAndReturn(_), true) => self.copy = DestinationSeen::Gone,
            (Action::Journal(stage), true) => self.stage = *stage,
            (Action::Close(ending), true) => self.stage = DestinationStage::Done(*ending),
            _ => {}
        }
        let (machine, action) = Destination::adopt(self.stage, self.copy);
        (self.machine, self.doing) = (machine, Action::Wait);
        self.check(&action, None);
    }

    fn check(&mut self, action: &Action, event: Option<&Event>) {
        match action {
            Action::Journal(DestinationStage::Owned) => {
                assert!(event.is_some_and(|event| self.is_handed_over(event)), "OWNED without GO: {event:?}");
            }
            Action::Journal(DestinationStage::Started) | Action::ReportStarted => {
                assert_eq!((self.copy, self.stage), (DestinationSeen::Running, DestinationStage::Owned));
            }
            Action::Start => assert_eq!((self.copy, self.stage), (DestinationSeen::Paused, DestinationStage::Owned)),
            Action::Discard(_) | Action::DiscardAndReturn(_) | Action::Journal(DestinationStage::Aborted) => {
                assert_ne!(self.copy, DestinationSeen::Running, "a copy that ran is discarded");
            }
            Action::Close(Ending::Moved) => assert_eq!(self.stage, DestinationStage::Started),
            Action::Close(Ending::Returned) => assert_eq!(event, Some(&Event::Discarded)),
            Action::SendReady => assert_eq!(self.stage, DestinationStage::Ready),
            _ => {}
        }
        if *action != Action::Wait {
            self.doing = action.clone();
        }
    }

    /// The source said GO, or its journal does, or a person speaks for a source that is dead and had held the domain.
    fn is_handed_over(&self, event: &Event) -> bool {
        match event {
            Event::Go | Event::Asked { answer: Answer::Stage(SourceStage::Go), .. } => true,
            Event::PeerDead { written: false } => self.held && self.stage == DestinationStage::Held,
            _ => false,
        }
    }
}
