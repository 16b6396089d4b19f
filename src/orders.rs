//! What a person tells the process that works on a migration: a file `ID.ORDER` beside the journal, which that process looks
//! for whenever it waits. It outlives both, so that nobody has to find the right process at the right moment.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use uuid::Uuid;

use crate::stream::Cancel;

/// What can be ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Stop, if GO has not been journaled.
    Cancel,
    /// The other host is dead: its copy of the domain does not run and will not run again.
    PeerIsDead,
}

impl Order {
    const ALL: [Order; 2] = [Order::Cancel, Order::PeerIsDead];

    fn extension(self) -> &'static str {
        match self {
            Order::Cancel => "cancel",
            Order::PeerIsDead => "peer-is-dead",
        }
    }

    fn path(self, dir: &Path, id: Uuid) -> PathBuf {
        dir.join(format!("{id}.{}", self.extension()))
    }

    /// Gives the order.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn give(self, dir: &Path, id: Uuid) -> io::Result<()> {
        let file = fs::File::create(self.path(dir, id))?;
        file.sync_all()?;
        fs::File::open(dir)?.sync_all()
    }

    /// Whether the order was given.
    #[must_use]
    pub fn is_given(self, dir: &Path, id: Uuid) -> bool {
        self.path(dir, id).exists()
    }
}

/// Takes all orders of a migration away: it is over.
pub fn clear(dir: &Path, id: Uuid) {
    for order in Order::ALL {
        match fs::remove_file(order.path(dir, id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%id, %error, "an order could not be taken away");
            }
            _ => {}
        }
    }
}

/// A thread that turns the order to cancel, given by another process, into the wish of this one. Ends when this is dropped.
#[derive(Debug)]
pub struct Follower {
    ended: Arc<AtomicBool>,
}

/// Follows the orders for a migration of this process.
#[must_use]
pub fn follow(dir: &Path, id: Uuid, cancel: &Cancel) -> Follower {
    let ended = Arc::new(AtomicBool::new(false));
    let (dir, cancel, end) = (dir.to_owned(), cancel.clone(), Arc::clone(&ended));
    std::thread::spawn(move || {
        while !end.load(Ordering::SeqCst) {
            if Order::Cancel.is_given(&dir, id) {
                cancel.cancel();
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
    });
    Follower { ended }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
    }
}

/// Between two looks for an order.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_given_seen_and_taken_away() {
        let dir = tempfile::tempdir().expect("a directory");
        let id = Uuid::new_v4();
        assert!(!Order::Cancel.is_given(dir.path(), id));
        Order::Cancel.give(dir.path(), id).expect("given");
        assert!(Order::Cancel.is_given(dir.path(), id) && !Order::PeerIsDead.is_given(dir.path(), id));
        clear(dir.path(), id);
        clear(dir.path(), id);
        assert!(!Order::Cancel.is_given(dir.path(), id));
    }
}
