//! The ways to Xen and DRBD, as far as there are any: what cannot be opened is a finding, not an end.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::drbd::Drbd;
use crate::ids::DomId;
use crate::migrate::chain;
use crate::plan::DomainFacts;
use crate::replication::Replication;
use crate::toolstack::Toolstack;
use crate::xen::Context;
use crate::xen::xenstore::Xenstore;

/// How long xenstored may take to answer. It has nothing to wait for.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// The ways, or why they are closed.
#[derive(Debug)]
pub struct Ways {
    /// Whether this is root, who alone may use most of them.
    pub is_root: bool,
    /// Whether xenstored answers.
    pub xenstore: Result<(), String>,
    /// libxl; not tried while xenstored is silent, for it would wait for ever.
    pub xen: Result<Context, String>,
    /// DRBD.
    pub drbd: Result<Drbd, drbd_nl::Error>,
}

impl Ways {
    /// Opens what can be opened, within seconds.
    #[must_use]
    pub fn open() -> Ways {
        let xenstore = within(ANSWER_WAIT, ask_xenstore)
            .unwrap_or_else(|| Err(format!("It does not answer within {} s", ANSWER_WAIT.as_secs())));
        let xen = match &xenstore {
            Ok(()) => Context::open().map_err(|error| chain(&error)),
            Err(_) => Err("It was not asked, since xenstored does not answer".to_owned()),
        };
        Ways { is_root: nix::unistd::geteuid().is_root(), xenstore, xen, drbd: Drbd::open() }
    }

    /// The way to Xen.
    ///
    /// # Errors
    /// Why there is none.
    pub fn toolstack(&self) -> Result<&dyn Toolstack, String> {
        self.xen.as_ref().map(|context| context as &dyn Toolstack).map_err(Clone::clone)
    }

    /// The way to DRBD.
    ///
    /// # Errors
    /// Why there is none.
    pub fn replication(&self) -> Result<&dyn Replication, String> {
        self.drbd.as_ref().map(|drbd| drbd as &dyn Replication).map_err(|error| chain(error))
    }
}

fn ask_xenstore() -> Result<(), String> {
    let answered = Xenstore::open().and_then(|store| store.read("/local/domain/0/domid"));
    match answered {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err("It does not know dom0: xen-init-dom0 has not run".into()),
        Err(error) => Err(chain(&error)),
    }
}

/// Looks on a thread of its own, which is left behind if it takes longer.
fn within<T: Send + 'static>(limit: Duration, look: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (say, hear) = mpsc::channel();
    let looker = thread::Builder::new().name("look".into()).spawn(move || {
        let _ = say.send(look());
    });
    looker.ok().and_then(|_| hear.recv_timeout(limit).ok())
}

/// A domain of this host, as far as it matters whether it can move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// Its name.
    pub name: String,
    /// The most memory that it may hold, in KiB.
    pub memory_max_kib: u64,
    /// The bridges of its nics.
    pub bridges: Vec<String>,
}

/// This host's domains but dom0; none where Xen does not answer.
#[must_use]
pub fn guests(ways: &Ways) -> Vec<Guest> {
    let Ok(toolstack) = ways.toolstack() else { return Vec::new() };
    let domains = toolstack.domains().unwrap_or_default().into_iter().filter(|domain| domain.domid != DomId(0));
    let guest = |domain: crate::toolstack::Domain| {
        // One that libxl did not make has no configuration.
        let config = toolstack.config(domain.domid).ok();
        let facts = config.and_then(|config| DomainFacts::from_json(&config).ok());
        let bridges = facts.map(|facts| facts.bridges).unwrap_or_default();
        Guest { name: domain.name, memory_max_kib: domain.memory_max_kib, bridges }
    };
    domains.map(guest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_hangs_is_left_behind() {
        assert_eq!(within(Duration::from_secs(20), || 7), Some(7));
        assert_eq!(within(Duration::from_millis(1), || thread::sleep(Duration::from_secs(5))), None);
    }
}
