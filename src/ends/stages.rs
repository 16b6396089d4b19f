//! A journal's stage in the words of each machine.

use crate::handover::{Answer, DestinationStage, Ending, SourceStage};
use crate::journal::{Done, Stage};

pub(crate) fn of_source(stage: Stage) -> Option<SourceStage> {
    Some(match stage {
        Stage::Open => SourceStage::Open,
        Stage::Released => SourceStage::Released,
        Stage::Go => SourceStage::Go,
        Stage::Returned => SourceStage::Returned,
        Stage::Done(done) => SourceStage::Done(ending(done)),
        Stage::Ready | Stage::Held | Stage::Owned | Stage::Started | Stage::Aborted => return None,
    })
}

pub(crate) fn of_destination(stage: Stage) -> Option<DestinationStage> {
    Some(match stage {
        Stage::Open => DestinationStage::Open,
        Stage::Ready => DestinationStage::Ready,
        Stage::Held => DestinationStage::Held,
        Stage::Owned => DestinationStage::Owned,
        Stage::Started => DestinationStage::Started,
        Stage::Aborted => DestinationStage::Aborted,
        Stage::Done(done) => DestinationStage::Done(ending(done)),
        Stage::Released | Stage::Go | Stage::Returned => return None,
    })
}

fn ending(done: Done) -> Ending {
    match done {
        Done::Moved => Ending::Moved,
        Done::RolledBack | Done::Failed => Ending::Returned,
        Done::Lost => Ending::Lost,
    }
}

/// How a journal's end is written down.
pub(crate) fn done(ending: Ending) -> Done {
    match ending {
        Ending::Moved => Done::Moved,
        Ending::Returned => Done::RolledBack,
        Ending::Lost => Done::Lost,
    }
}

/// What the other end's daemon said. A stage that cannot be the other end's counts as no such journal: a person must look.
pub(crate) fn answer<S>(said: Result<Option<Stage>, String>, of: impl Fn(Stage) -> Option<S>) -> Answer<S> {
    match said {
        Ok(Some(stage)) => of(stage).map_or(Answer::Unknown, Answer::Stage),
        Ok(None) => Answer::Unknown,
        Err(_) => Answer::Unreachable,
    }
}
