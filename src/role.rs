//! Changing a volume's role, with the patience that life asks for: DRBD refuses for a moment while another state change
//! runs, while the peer's demotion is still on its way, or while blkback has not closed the device of a domain that is gone.
//!
//! On 8.4 a role belongs to a minor, on DRBD 9 to the resource; [`drbd_nl::Target`] names both.

use std::fmt;
use std::time::Instant;

use drbd_nl::{Change, Drbd, Refusal, Target};

use crate::dm::DeviceNumber;
use crate::holders::{self, Holder};
use crate::ids::Minor;
use crate::wait::retry_until;

/// What to do while the peer is Primary and the connection does not allow two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// The peer is about to become Secondary: wait for it.
    WaitForPeer,
    /// The peer has the volume: refuse at once.
    RefuseAtOnce,
}

/// Which change was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// To Primary.
    Promote,
    /// To Secondary.
    Demote,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Promote => "made Primary",
            Self::Demote => "made Secondary",
        })
    }
}

/// Why a role did not change.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The peer is Primary.
    #[error("{resource} (minor {minor}) cannot be made Primary: the peer is")]
    PeerPrimary {
        /// The resource.
        resource: String,
        /// The volume's minor.
        minor: Minor,
        /// DRBD's refusal.
        #[source]
        source: Box<drbd_nl::Error>,
    },
    /// Somebody on this host has the volume open.
    #[error("{resource} (minor {minor}) cannot be made Secondary: it is held open by {}", holders::describe(holders))]
    InUse {
        /// The resource.
        resource: String,
        /// The volume's minor.
        minor: Minor,
        /// Who holds it, as far as that shows.
        holders: Vec<Holder>,
        /// DRBD's refusal.
        #[source]
        source: Box<drbd_nl::Error>,
    },
    /// DRBD refused for another reason, or did not answer.
    #[error("{resource} (minor {minor}) cannot be {verb}")]
    Refused {
        /// The resource.
        resource: String,
        /// The volume's minor.
        minor: Minor,
        /// What was asked for.
        verb: Verb,
        /// DRBD's refusal.
        #[source]
        source: Box<drbd_nl::Error>,
    },
}

/// Makes the volume Primary, trying again while DRBD says that a moment may help.
///
/// # Errors
/// [`Error::PeerPrimary`], at once or at `deadline` as `patience` says; [`Error::Refused`]. Each try may take as long as a ping
/// to the peer, whatever the deadline.
pub fn promote_with_retry(
    drbd: &mut Drbd,
    target: &Target,
    patience: Patience,
    deadline: Instant,
) -> Result<Change, Error> {
    let may_pass =
        |refusal: Refusal| refusal.is_transient() || (patience == Patience::WaitForPeer && is_peers(refusal));
    let result = retry(deadline, may_pass, || drbd.primary(target, false));
    result.map_err(|error| refused_promotion(target, error))
}

/// Makes the volume Secondary, trying again while somebody has it open.
///
/// # Errors
/// [`Error::InUse`] at `deadline`, naming who shows; [`Error::Refused`].
pub fn demote_with_retry(drbd: &mut Drbd, target: &Target, deadline: Instant) -> Result<Change, Error> {
    let may_pass = |refusal: Refusal| refusal.is_transient() || refusal == Refusal::DeviceInUse;
    let result = retry(deadline, may_pass, || drbd.secondary(target));
    result.map_err(|error| refused_demotion(target, error))
}

/// Tries until it succeeds, fails for good, or the deadline has passed.
pub(crate) fn retry<T>(
    deadline: Instant,
    may_pass: impl Fn(Refusal) -> bool,
    attempt: impl FnMut() -> Result<T, drbd_nl::Error>,
) -> Result<T, drbd_nl::Error> {
    retry_until(deadline, attempt, |result| {
        let refusal = result.as_ref().err().and_then(drbd_nl::Error::refusal);
        !refusal.is_some_and(&may_pass)
    })
}

/// Refusals that the peer's demotion ends. On 8.4 another volume of the resource can stand in the way, too.
fn is_peers(refusal: Refusal) -> bool {
    matches!(refusal, Refusal::TwoPrimaries | Refusal::OtherVolumePeerPrimary | Refusal::RefusedByPeer)
}

fn refused_promotion(target: &Target, source: drbd_nl::Error) -> Error {
    let (resource, minor) = (target.resource.clone(), Minor(target.minor));
    let source = Box::new(source);
    if source.refusal().is_some_and(is_peers) {
        return Error::PeerPrimary { resource, minor, source };
    }
    Error::Refused { resource, minor, verb: Verb::Promote, source }
}

fn refused_demotion(target: &Target, source: drbd_nl::Error) -> Error {
    let (resource, minor) = (target.resource.clone(), Minor(target.minor));
    let source = Box::new(source);
    if source.refusal() == Some(Refusal::DeviceInUse) {
        let holders = holders::holders(DeviceNumber::drbd(minor));
        return Error::InUse { resource, minor, holders, source };
    }
    Error::Refused { resource, minor, verb: Verb::Demote, source }
}
