//! The unfinished migrations of this host, and what killed processes have left, as `list` and `status` show them beside what they concern.

use std::fmt;
use std::path::Path;

use bascule::abandoned::Charge;
use bascule::admission::{self, Side};
use bascule::host;
use bascule::journal::{self, Stage, Story};
use serde::Serialize;
use uuid::Uuid;

use super::exit::Error;

/// A migration as this host's journal has it.
#[derive(Serialize)]
pub(crate) struct Migration {
    id: Uuid,
    domain: String,
    side: Side,
    peer: String,
    stage: Stage,
}

impl From<&Story> for Migration {
    fn from(story: &Story) -> Migration {
        let head = &story.head;
        let (domain, peer) = (head.name.clone(), head.peer.node.clone());
        Migration { id: head.id, domain, side: head.side, peer, stage: story.stage() }
    }
}

impl fmt::Display for Migration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Migration { id, domain, side, peer, stage } = self;
        let direction = if *side == Side::Outgoing { "to" } else { "from" };
        write!(f, "{domain} in migration {id} {direction} {peer}, {stage}: bascule recover --dry-run {id}")
    }
}

/// A domain that a killed process was saving, or making, and that nobody has seen to yet.
#[derive(Clone, Serialize)]
pub(crate) struct Left {
    pub(crate) id: Uuid,
    pub(crate) domain: String,
    /// The process that was killed.
    process: u32,
    #[serde(flatten)]
    pub(crate) charge: Charge,
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Left { id, domain, process, charge } = self;
        let what = match &charge.saving {
            Some(saving) => format!("saved it to {}", saving.file.display()),
            None => "made it".to_owned(),
        };
        write!(f, "{domain} was left by process {process}, which was killed while it {what}: bascule recover {id}")
    }
}

/// What is left, and nobody works on.
pub(crate) fn left() -> Result<Vec<Left>, Error> {
    let all = admission::abandoned(host::RUN_DIR.as_ref())?.into_iter();
    let left = |entry: admission::Entry| {
        let (id, domain, process) = (entry.id, entry.name, entry.pid);
        entry.charge.map(|charge| Left { id, domain, process, charge })
    };
    Ok(all.filter_map(left).collect())
}

/// What the journals say that can be read.
pub(crate) fn stories(state_dir: &Path) -> Result<Vec<Story>, Error> {
    let listed = journal::unfinished(state_dir)?.into_iter();
    Ok(listed.filter_map(|listed| listed.story.ok()).filter(|story| !story.is_done()).collect())
}

/// The resources that unfinished migrations name.
pub(crate) fn resources(state_dir: &Path) -> Result<Vec<String>, Error> {
    let stories = stories(state_dir)?;
    let volumes = stories.iter().flat_map(|story| &story.head.volumes);
    Ok(volumes.map(|volume| volume.id.resource.clone()).collect())
}
