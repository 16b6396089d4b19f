//! The blows, and what is done to undo them.

use std::time::Duration;

use bascule_lab::Link;
use bascule_lab::pair::Pair;

/// What happens to a migration at a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blow {
    SourceKilled,
    WorkerKilled,
    DaemonsKilled,
    RelocationCut,
    ReplicationCut,
    BothCut,
    BothCutAndRestored,
    SourceOff,
    DestinationOff,
}

/// How long links stay cut, and nodes without power: longer than anybody needs to notice.
const OUTAGE: Duration = Duration::from_secs(20);
/// How long, when it is to end before anybody has noticed.
const SHORT_OUTAGE: Duration = Duration::from_secs(2);

impl Blow {
    pub(crate) const ALL: [Blow; 9] = [
        Blow::SourceKilled,
        Blow::WorkerKilled,
        Blow::DaemonsKilled,
        Blow::RelocationCut,
        Blow::ReplicationCut,
        Blow::BothCut,
        Blow::BothCutAndRestored,
        Blow::SourceOff,
        Blow::DestinationOff,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Blow::SourceKilled => "source-killed",
            Blow::WorkerKilled => "worker-killed",
            Blow::DaemonsKilled => "daemons-killed",
            Blow::RelocationCut => "relocation-cut",
            Blow::ReplicationCut => "replication-cut",
            Blow::BothCut => "both-cut",
            Blow::BothCutAndRestored => "both-cut-and-restored",
            Blow::SourceOff => "source-off",
            Blow::DestinationOff => "destination-off",
        }
    }

    /// Strikes while the migration stands at its step.
    pub(crate) fn strike(self, pair: &Pair, from: u8) -> anyhow::Result<()> {
        let to = 3 - from;
        match self {
            Blow::SourceKilled => pair.node(from).ok("pkill -KILL -f '^bascule migrate'").map(drop),
            Blow::WorkerKilled => pair.node(to).ok("pkill -KILL -f 'bascule.* [s]ession'").map(drop),
            Blow::DaemonsKilled => {
                for node in pair.lab().nodes() {
                    node.ok("pkill -KILL -f '^bascule serve'")?;
                }
                Ok(())
            }
            Blow::RelocationCut => pair.lab().cut(Link::Relocation),
            Blow::ReplicationCut => pair.lab().cut(Link::Replication),
            Blow::BothCut | Blow::BothCutAndRestored => {
                pair.lab().cut(Link::Relocation)?;
                pair.lab().cut(Link::Replication)
            }
            Blow::SourceOff => pair.node(from).power_off(),
            Blow::DestinationOff => pair.node(to).power_off(),
        }
    }

    /// How long it lasts.
    pub(crate) fn outage(self) -> Duration {
        match self {
            Blow::SourceKilled | Blow::WorkerKilled => Duration::ZERO,
            Blow::DaemonsKilled | Blow::BothCutAndRestored => SHORT_OUTAGE,
            _ => OUTAGE,
        }
    }

    /// Both hosts are reachable again, and their daemons run.
    pub(crate) fn mend(self, pair: &Pair) -> anyhow::Result<()> {
        pair.lab().restore(Link::Relocation)?;
        pair.lab().restore(Link::Replication)?;
        for node in pair.lab().nodes() {
            node.power_on()?;
            pair.serve(node.nr())?;
        }
        Ok(())
    }

    /// The node whose power was cut.
    pub(crate) fn off(self, from: u8) -> Option<u8> {
        match self {
            Blow::SourceOff => Some(from),
            Blow::DestinationOff => Some(3 - from),
            _ => None,
        }
    }
}
