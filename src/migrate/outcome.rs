//! How a migration ends, as its caller sees it.

use crate::ends::Over;
use crate::ends::source::SourceEnd;
use crate::handover::Ending;
use crate::plan::Plan;
use crate::protocol::Finding;
use crate::report::Receipt;
use crate::toolstack::Error;

/// How a migration ended.
#[derive(Debug)]
pub enum Outcome {
    /// The domain runs at the destination.
    Moved(Box<Receipt>),
    /// A dry run found nothing against it; warnings only.
    Clear(Vec<Finding>),
    /// Preflight found what would make it fail; nothing was changed.
    Refused(Vec<Finding>),
    /// It failed before the domain was touched; the domain runs at the source.
    Failed(Error),
    /// It failed on the way; everything was taken back and the domain runs at the source.
    RolledBack {
        /// What failed.
        reason: Error,
    },
    /// The domain is suspended at the source and could not be resumed, or nobody here can know where it runs.
    Indeterminate {
        /// What failed.
        reason: Error,
        /// What is known, and what to type.
        advice: String,
    },
}

/// How it ended when the domain has not moved, or nobody here knows.
pub(super) fn conclude(plan: &Plan, end: &SourceEnd<'_>, over: Over) -> Outcome {
    let (id, name) = (plan.id, &plan.facts.name);
    match over {
        Over::Closed { ending: Ending::Returned, reason } => Outcome::RolledBack { reason: reason.into() },
        Over::Left(why) if end.runs_here => {
            tracing::warn!(%id, why, "not everything is as it was yet; the daemon goes on, or type: bascule recover {id}");
            Outcome::RolledBack { reason: end.reason().to_owned().into() }
        }
        Over::Closed { reason, .. } => Outcome::Indeterminate {
            reason: reason.into(),
            advice: format!(
                "Domain {name} does not exist here any more, and it does not run on {} either. Start it again: bascule create",
                plan.request.host
            ),
        },
        Over::Left(why) | Over::Doubt(why) => Outcome::Indeterminate {
            reason: end.reason().to_owned().into(),
            advice: format!(
                "Domain {name} stays suspended here: {why}. The daemon goes on; what it sees: bascule recover --dry-run {id}. \
                 If {host} is dead, and only then: bascule recover --peer-is-dead {id}",
                host = plan.request.host
            ),
        },
    }
}
