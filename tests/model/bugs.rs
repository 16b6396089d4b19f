//! Planted bugs: what the checker must find, or it proves nothing.

use bascule::handover::{
    Answer, Destination, DestinationAction, DestinationEvent, DestinationStage, Ending, Source, SourceAction,
    SourceEvent, SourceStage,
};

use crate::handover::Rules;

/// The machines as they are.
pub(crate) const NONE: Rules = Rules { source: Source::step, destination: Destination::step, looks_again: true };

/// Each bug by its name.
pub(crate) const PLANTED: [(&str, Rules); 10] = [
    ("the source resumes when the connection is lost after GO", Rules { source: resume_on_lost, ..NONE }),
    ("GO is sent without being journaled", Rules { source: unjournaled_go, ..NONE }),
    ("the source retires on OWNED", Rules { source: retire_on_owned, ..NONE }),
    ("the source takes the link's word though the counters moved", Rules { source: blind_to_counters, ..NONE }),
    ("the source resumes without looking at the disk again", Rules { looks_again: false, ..NONE }),
    ("the source gives its copy up because the other one is lost", Rules { source: bury_on_lost, ..NONE }),
    ("the operator's word is enough at the destination", Rules { destination: dead_is_enough, ..NONE }),
    ("the destination gives up without journaling ABORTED", Rules { destination: unjournaled_abort, ..NONE }),
    ("the destination starts its copy when the connection is lost", Rules { destination: start_on_lost, ..NONE }),
    ("the destination starts its copy without journaling OWNED", Rules { destination: unjournaled_start, ..NONE }),
];

fn resume_on_lost(source: Source, event: SourceEvent) -> (Source, SourceAction) {
    match (source, event) {
        (Source::Committed, SourceEvent::Lost(why)) => (Source::TakingBack, SourceAction::TakeBack(why)),
        (source, event) => source.step(event),
    }
}

fn unjournaled_go(source: Source, event: SourceEvent) -> (Source, SourceAction) {
    match source.step(event) {
        (Source::Promising, SourceAction::Journal(SourceStage::Go)) => (Source::Committed, SourceAction::SendGo),
        step => step,
    }
}

fn retire_on_owned(source: Source, event: SourceEvent) -> (Source, SourceAction) {
    match event {
        SourceEvent::Asked { answer: Answer::Stage(DestinationStage::Owned), witness } => {
            source.step(SourceEvent::Asked { answer: Answer::Stage(DestinationStage::Started), witness })
        }
        event => source.step(event),
    }
}

fn blind_to_counters(source: Source, event: SourceEvent) -> (Source, SourceAction) {
    match event {
        SourceEvent::Asked { answer, mut witness } => {
            witness.written = false;
            source.step(SourceEvent::Asked { answer, witness })
        }
        event => source.step(event),
    }
}

fn bury_on_lost(source: Source, event: SourceEvent) -> (Source, SourceAction) {
    match event {
        SourceEvent::Asked { answer: answer @ Answer::Stage(DestinationStage::Done(Ending::Lost)), mut witness } => {
            witness.written = true;
            source.step(SourceEvent::Asked { answer, witness })
        }
        event => source.step(event),
    }
}

fn dead_is_enough(destination: Destination, event: DestinationEvent) -> (Destination, DestinationAction) {
    match (destination, event) {
        (Destination::Asking { .. }, DestinationEvent::PeerDead { .. }) => {
            (Destination::Owning, DestinationAction::Journal(DestinationStage::Owned))
        }
        (destination, event) => destination.step(event),
    }
}

fn unjournaled_abort(destination: Destination, event: DestinationEvent) -> (Destination, DestinationAction) {
    match destination.step(event) {
        (next, DestinationAction::Journal(DestinationStage::Aborted)) => next.step(DestinationEvent::Journaled),
        step => step,
    }
}

fn start_on_lost(destination: Destination, event: DestinationEvent) -> (Destination, DestinationAction) {
    match (destination, event) {
        (Destination::AwaitGo, DestinationEvent::Lost(_)) => {
            (Destination::Owning, DestinationAction::Journal(DestinationStage::Owned))
        }
        (destination, event) => destination.step(event),
    }
}

fn unjournaled_start(destination: Destination, event: DestinationEvent) -> (Destination, DestinationAction) {
    match destination.step(event) {
        (next, DestinationAction::Journal(DestinationStage::Owned)) => next.step(DestinationEvent::Journaled),
        step => step,
    }
}
