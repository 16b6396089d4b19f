//! What to do about a migration whose process is gone: computed from its journal, from what is seen here, and from what the
//! other end and the replication link say; then done, by the same machines and hands that a living migration has.

use serde::Serialize;
use uuid::Uuid;

use crate::admission::{self, Side};
use crate::ends::arriving::Arriving;
use crate::ends::ask;
use crate::ends::destination::DestinationEnd;
use crate::ends::leaving::{Leaving, any_connected};
use crate::ends::source::SourceEnd;
use crate::ends::stages;
use crate::ends::{Over, Patience};
use crate::handover::{Destination, DestinationAction, DestinationEvent, Source, SourceAction, SourceEvent};
use crate::host::Host;
use crate::journal::{self, Journal, Stage, Story};
use crate::migrate::chain;
use crate::plan::Timeouts;
use crate::toolstack::Error;

/// What is seen of a migration, and what follows.
#[derive(Clone, Debug, Serialize)]
pub struct Examination {
    /// The migration.
    pub id: Uuid,
    /// The domain.
    pub domain: String,
    /// Which end this host is.
    pub side: Side,
    /// The other end's node name.
    pub peer: String,
    /// What the journal here says.
    pub stage: Stage,
    /// What is seen of the domain here.
    pub seen: String,
    /// What the other end's journal says, or why it could not be asked; nothing when it need not be.
    pub peer_said: Option<String>,
    /// What the replication link shows; nothing when it need not be looked at.
    pub link: Option<String>,
    /// What follows from all that.
    pub conclusion: String,
}

/// Why the other end's host is not dead, if this can be seen: its daemon answers, or its DRBD does.
///
/// # Errors
/// DRBD here does not answer.
pub fn sign_of_life(host: &Host<'_>, story: &Story) -> Result<Option<String>, Error> {
    let peer = &story.head.peer.node;
    if ask::stage(host, &story.head.peer, story.head.id).is_ok() {
        return Ok(Some(format!("The daemon of {peer} answers")));
    }
    let connected = any_connected(host, &story.head.volumes)?;
    Ok(connected.then(|| {
        format!("DRBD is connected to {peer} (a dead host is noticed within ping-int and ping-timeout, 10.5 s)")
    }))
}

/// How a recovery ended.
#[derive(Debug)]
pub enum Recovered {
    /// This process worked on it, up to there.
    Over(Over),
    /// Another process works on it.
    Held,
    /// There was nothing to do.
    Done,
}

/// Adopts a journal and goes on with it as long as there is patience.
///
/// # Errors
/// The journal cannot be read, or the hypervisor does not answer.
pub fn recover(host: &Host<'_>, id: Uuid, timeouts: Timeouts, patience: &mut Patience) -> Result<Recovered, Error> {
    let Some(mut journal) = Journal::adopt(host.state_dir, id)? else { return Ok(Recovered::Held) };
    if journal.story().is_done() {
        return Ok(Recovered::Done);
    }
    let examined = examine(host, journal.story())?;
    tracing::info!(%id, ?examined, "adopted");
    note(&mut journal, &examined);
    let over = match journal.story().head.side {
        Side::Outgoing => {
            let (mut end, machine, action) = SourceEnd::adopt(host, journal, timeouts)?;
            end.run(machine, action, patience)
        }
        Side::Incoming => {
            let (mut end, machine, action) = DestinationEnd::adopt(host, journal, timeouts)?;
            end.run(machine, action, patience)
        }
    };
    if let Err(error) = admission::remove_stale_records(host.run_dir) {
        tracing::warn!(error = %chain(&error), "the dead process's record is still there");
    }
    Ok(Recovered::Over(over))
}

/// For whoever reads the history; a note that cannot be written decides nothing.
fn note(journal: &mut Journal, examined: &Examination) {
    let text = serde_json::to_string(examined).unwrap_or_default();
    if let Err(error) = journal.append(journal::Record::Note { text }) {
        tracing::warn!(%error, "what was seen could not be noted");
    }
}

/// Looks and concludes; changes nothing.
///
/// # Errors
/// The hypervisor or DRBD do not answer.
pub fn examine(host: &Host<'_>, story: &Story) -> Result<Examination, Error> {
    let blank = Examination {
        id: story.head.id,
        domain: story.head.name.clone(),
        side: story.head.side,
        peer: story.head.peer.node.clone(),
        stage: story.stage(),
        seen: String::new(),
        peer_said: None,
        link: None,
        conclusion: String::new(),
    };
    match story.head.side {
        Side::Outgoing => examine_source(host, story, blank),
        Side::Incoming => examine_destination(host, story, blank),
    }
}

fn examine_source(host: &Host<'_>, story: &Story, blank: Examination) -> Result<Examination, Error> {
    let leaving = Leaving { host, head: &story.head, samples: story.samples() };
    let seen = leaving.seen()?;
    let stage = stages::of_source(story.stage()).ok_or("The journal is not a source's")?;
    let (machine, action) = Source::adopt(stage, seen);
    let mut found = Examination { seen: format!("{seen:?}").to_lowercase(), ..blank };
    let action = match action {
        SourceAction::Ask(_) => {
            let said = ask::stage_or_reason(host, &story.head.peer, story.head.id);
            let witness = leaving.witness()?;
            found.peer_said = Some(in_words(&said));
            found.link = Some(format!(
                "{}, the peer is {}, the disk here was {}",
                if witness.connected { "connected" } else { "not connected" },
                if witness.peer_primary { "Primary" } else { "not Primary" },
                if witness.written { "written since the suspend" } else { "not written since the suspend" },
            ));
            machine.step(SourceEvent::Asked { answer: stages::answer(said, stages::of_destination), witness }).1
        }
        action => action,
    };
    found.conclusion = source_words(&action);
    Ok(found)
}

fn source_words(action: &SourceAction) -> String {
    match action {
        SourceAction::Journal(_) | SourceAction::TakeBack(_) => {
            "the domain is this host's: its volumes are taken back and it runs on here".into()
        }
        SourceAction::Retire => "the domain lives at the destination: the suspended copy here is destroyed".into(),
        SourceAction::Bury(why) => format!("the domain runs nowhere, and the suspended copy here is destroyed: {why}"),
        SourceAction::Ask(_) => {
            "nobody here can know yet whether the destination runs it: it stays suspended, and the destination is asked again".into()
        }
        SourceAction::Doubt(why) => format!("a person must speak: {why}"),
        SourceAction::Close(ending) => format!("nothing is left to do: {ending}"),
        other => format!("nothing can be decided ({other:?})"),
    }
}

fn examine_destination(host: &Host<'_>, story: &Story, blank: Examination) -> Result<Examination, Error> {
    let arriving = Arriving { host, head: &story.head, domid: story.copy() };
    let seen = arriving.seen()?;
    let stage = stages::of_destination(story.stage()).ok_or("The journal is not a destination's")?;
    let (machine, action) = Destination::adopt(stage, seen);
    let mut found = Examination { seen: format!("{seen:?}").to_lowercase(), ..blank };
    let action = match action {
        DestinationAction::Ask(_) => {
            let said = ask::stage_or_reason(host, &story.head.peer, story.head.id);
            let replication_up = arriving.replication_up()?;
            found.peer_said = Some(in_words(&said));
            found.link = Some(if replication_up { "connected" } else { "not connected" }.into());
            let answer = stages::answer(said, stages::of_source);
            machine.step(DestinationEvent::Asked { answer, replication_up }).1
        }
        action => action,
    };
    found.conclusion = destination_words(&action);
    Ok(found)
}

fn destination_words(action: &DestinationAction) -> String {
    match action {
        DestinationAction::Journal(stage) if *stage != crate::handover::DestinationStage::Aborted => {
            "the domain is this host's: its copy goes on here".into()
        }
        DestinationAction::Start | DestinationAction::Finish => "the domain is this host's: its copy runs here".into(),
        DestinationAction::Journal(_) | DestinationAction::Discard(_) | DestinationAction::DiscardAndReturn(_) => {
            "the domain is the source's: the copy here is destroyed".into()
        }
        DestinationAction::Ask(_) => {
            "this may be the only copy that is left: it stays paused, and the source is asked again".into()
        }
        DestinationAction::Doubt(why) => format!("a person must speak: {why}"),
        DestinationAction::Close(ending) => format!("nothing is left to do: {ending}"),
        other => format!("nothing can be decided ({other:?})"),
    }
}

fn in_words(said: &Result<Option<Stage>, String>) -> String {
    match said {
        Ok(Some(stage)) => stage.to_string(),
        Ok(None) => "knows of no such migration".into(),
        Err(why) => format!("could not be asked: {why}"),
    }
}
