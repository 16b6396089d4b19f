//! The source's machine, and what is true of its domain and its journal.

use bascule::handover::{
    Answer, DestinationStage, Ending, Source, SourceAction as Action, SourceEvent as Event, SourceSeen, SourceStage,
    Witness,
};

use super::{bit, pick, why};

pub(super) fn run(events: impl Iterator<Item = (u8, u8)>) {
    let mut end = End::new();
    for (kind, particulars) in events {
        end.meet(kind, particulars);
    }
}

const ANSWERS: [Answer<DestinationStage>; 11] = [
    Answer::Unknown,
    Answer::Unreachable,
    Answer::Stage(DestinationStage::Open),
    Answer::Stage(DestinationStage::Ready),
    Answer::Stage(DestinationStage::Held),
    Answer::Stage(DestinationStage::Owned),
    Answer::Stage(DestinationStage::Started),
    Answer::Stage(DestinationStage::Aborted),
    Answer::Stage(DestinationStage::Done(Ending::Moved)),
    Answer::Stage(DestinationStage::Done(Ending::Returned)),
    Answer::Stage(DestinationStage::Done(Ending::Lost)),
];

/// The program around the machine.
struct End {
    machine: Source,
    /// What it is doing.
    doing: Action,
    /// The last durable record.
    stage: SourceStage,
    domain: SourceSeen,
    go_sent: bool,
}

impl End {
    fn new() -> End {
        End {
            machine: Source::AwaitReady,
            doing: Action::Wait,
            stage: SourceStage::Released,
            domain: SourceSeen::Suspended,
            go_sent: false,
        }
    }

    fn meet(&mut self, kind: u8, particulars: u8) {
        if kind == 0 {
            return self.die(particulars);
        }
        let event = self.event(kind, particulars);
        self.comes_true(&event, particulars);
        let (machine, action) = self.machine.clone().step(event.clone());
        self.machine = machine;
        self.check(&action, Some(&event));
    }

    fn event(&self, kind: u8, particulars: u8) -> Event {
        let witness =
            Witness { connected: bit(particulars, 4), peer_primary: bit(particulars, 5), written: bit(particulars, 6) };
        match kind % 18 {
            0 => Event::Ready,
            1 => Event::Verified,
            2 => Event::Refuted(why()),
            3 => Event::Cancelled,
            4 => Event::Failed(why()),
            5 => Event::Lost(why()),
            6 => Event::Started,
            7 => Event::Returned(why()),
            8 | 9 => Event::Journaled,
            10 => Event::NotJournaled(why()),
            11 | 12 => Event::Asked { answer: pick(&ANSWERS, particulars & 15), witness },
            13 => Event::PeerDead { witness },
            14 => Event::TakenBack,
            15 => Event::Gone,
            16 => Event::Written,
            _ if bit(particulars, 0) => Event::Retired,
            _ => Event::Stuck(why()),
        }
    }

    /// What the hands report is so, where it is what they were told to do.
    fn comes_true(&mut self, event: &Event, particulars: u8) {
        match (&self.doing, event) {
            (Action::Journal(stage), Event::Journaled) => self.stage = *stage,
            (Action::Journal(stage), Event::NotJournaled(_)) if bit(particulars, 0) => self.stage = *stage,
            (Action::TakeBack(_), Event::TakenBack) => self.domain = SourceSeen::Running,
            (Action::TakeBack(_), Event::Gone) | (Action::Retire, Event::Retired) => self.domain = SourceSeen::Gone,
            _ => {}
        }
    }

    /// The process ends, or its host, and somebody adopts the journal. What was being done may have been done.
    fn die(&mut self, particulars: u8) {
        match (&self.doing, bit(particulars, 0)) {
            (_, true) if bit(particulars, 1) => self.domain = SourceSeen::Gone,
            (Action::TakeBack(_), true) => self.domain = SourceSeen::Running,
            (Action::Retire, true) => self.domain = SourceSeen::Gone,
            (Action::Journal(stage), true) => self.stage = *stage,
            (Action::Close(ending), true) => self.stage = SourceStage::Done(*ending),
            _ => {}
        }
        let (machine, action) = Source::adopt(self.stage, self.domain);
        (self.machine, self.doing) = (machine, Action::Wait);
        self.check(&action, None);
    }

    fn check(&mut self, action: &Action, event: Option<&Event>) {
        let alone = self.stage != SourceStage::Go;
        match action {
            Action::SendGo => {
                assert!(self.stage == SourceStage::Go && !self.go_sent, "GO that is not in the journal, or twice");
                self.go_sent = true;
            }
            Action::TakeBack(_) => assert!(alone, "taken back after GO without RETURNED"),
            Action::Retire => assert!(!alone && event.is_some_and(runs_there), "retired a domain that may run nowhere"),
            Action::Journal(SourceStage::Returned) => {
                assert!(!alone && event.is_some_and(never_ran_there), "RETURNED though it may run there: {event:?}");
            }
            Action::Journal(SourceStage::Go) => assert!(!self.go_sent && event == Some(&Event::Verified)),
            Action::Close(Ending::Returned) => assert!(event == Some(&Event::TakenBack) && alone),
            Action::Close(Ending::Moved) => assert!(event == Some(&Event::Retired) && !alone),
            _ => {}
        }
        if *action != Action::Wait {
            self.doing = action.clone();
        }
    }
}

fn runs_there(event: &Event) -> bool {
    let Event::Asked { answer: Answer::Stage(stage), .. } = event else { return *event == Event::Started };
    matches!(stage, DestinationStage::Started | DestinationStage::Done(Ending::Moved))
}

/// By the destination's word, or by a disk that nobody wrote and a peer that does not hold it, or by a person's word and such a disk.
fn never_ran_there(event: &Event) -> bool {
    let (answer, witness) = match event {
        Event::Returned(_) => return true,
        Event::PeerDead { witness } => return !witness.written,
        Event::Asked { answer, witness } => (answer, witness),
        _ => return false,
    };
    match answer {
        Answer::Stage(DestinationStage::Aborted | DestinationStage::Done(Ending::Returned)) => true,
        Answer::Stage(DestinationStage::Done(Ending::Lost)) | Answer::Unreachable => {
            witness.connected && !witness.peer_primary && !witness.written
        }
        _ => false,
    }
}
