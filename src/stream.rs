//! The memory stream of the source: libxl's save on the relocation connection, while a second thread listens.
//!
//! The direction from the destination stays free for its errors; an error, a cut connection or the user's wish aborts
//! the save. Afterwards the domain runs, or is suspended: the caller looks.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::host::Host;
use crate::ids::DomId;
use crate::protocol::{self, Message};
use crate::report::{Event, Report};
use crate::toolstack::{self, Abort, OnStream, StreamEvent, StreamProgress};
use crate::transport::{self, Channel};

/// The user's wish that a migration stop. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks the migration to stop; it does so up to GO.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether somebody asked.
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// A stream that has been sent to its end: the domain is suspended.
#[derive(Clone, Copy, Debug)]
pub struct Streamed {
    /// When the domain was suspended.
    pub suspended_at: Instant,
    /// When the stream's last byte had been handed to the kernel.
    pub ended_at: Instant,
    /// Rounds, the last one included.
    pub rounds: u32,
}

/// Why a stream did not reach its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The destination said so.
    #[error("The destination failed while {step}: {reason}")]
    Destination {
        /// What it was doing.
        step: String,
        /// Why it failed.
        reason: String,
    },
    /// The connection ended.
    #[error("The destination is gone")]
    Connection(#[source] transport::Error),
    /// Nothing was acknowledged for too long.
    #[error("The stream made no progress for {} s", .0.as_secs())]
    Stalled(Duration),
    /// The user asked.
    #[error("Cancelled")]
    Cancelled,
    /// libxl failed for a reason of its own.
    #[error("The stream failed")]
    Toolstack(#[source] toolstack::Error),
}

/// Between two looks at the user's wish and at the end of the save.
const LISTEN_INTERVAL: Duration = Duration::from_millis(100);

/// Streams the domain to its end.
///
/// # Errors
/// The domain may then run or be suspended.
pub fn send(
    host: &Host<'_>,
    domid: DomId,
    channel: &Channel,
    report: &Arc<dyn Report>,
    cancel: &Cancel,
    stall: Duration,
) -> Result<Streamed, Error> {
    let watch = Arc::new(Watch::default());
    let events = on_stream(Arc::clone(&watch), channel.try_clone().map_err(Error::Connection)?, Arc::clone(report));
    let (saved, heard, ended_at) = std::thread::scope(|scope| {
        let listener = scope.spawn(|| listen(channel, &watch, cancel, stall));
        let saved = host.toolstack.save(domid, channel.as_fd(), events, &|handle| watch.arm(handle));
        let ended_at = Instant::now();
        watch.ended.store(true, Ordering::SeqCst);
        (saved, listener.join().unwrap_or(None), ended_at)
    });
    match (saved, heard) {
        (Ok(()), None) => Ok(watch.streamed(ended_at)),
        (_, Some(error)) => Err(error),
        (Err(error), None) => Err(last_words(channel).unwrap_or(Error::Toolstack(error))),
    }
}

/// What the threads of one stream share.
#[derive(Default)]
struct Watch {
    ended: AtomicBool,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    handle: Option<Arc<dyn Abort>>,
    last_round: u32,
    suspended_at: Option<Instant>,
}

impl Watch {
    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arm(&self, handle: Arc<dyn Abort>) {
        self.seen().handle = Some(handle);
    }

    fn abort(&self) {
        if let Some(handle) = &self.seen().handle {
            handle.abort();
        }
    }

    fn streamed(&self, ended_at: Instant) -> Streamed {
        let seen = self.seen();
        Streamed { suspended_at: seen.suspended_at.unwrap_or(ended_at), ended_at, rounds: seen.last_round + 1 }
    }
}

fn on_stream(watch: Arc<Watch>, channel: Channel, report: Arc<dyn Report>) -> OnStream {
    Arc::new(move |event| match event {
        StreamEvent::Suspended => {
            watch.seen().suspended_at.get_or_insert_with(Instant::now);
            report.event(Event::Suspended);
        }
        StreamEvent::Progress(StreamProgress { round, done, total }) => {
            watch.seen().last_round = round;
            report.event(Event::Progress { round, done, total, bytes: channel.bytes().acknowledged });
        }
    })
}

/// Listens to the destination and to the user until the save ends; aborts it when there is a reason.
fn listen(channel: &Channel, watch: &Watch, cancel: &Cancel, stall: Duration) -> Option<Error> {
    let mut progress = (channel.bytes().acknowledged, Instant::now());
    while !watch.ended.load(Ordering::SeqCst) {
        let heard = match channel.wait_readable(LISTEN_INTERVAL) {
            Ok(false) if cancel.requested() => Some(Error::Cancelled),
            Ok(false) => stalled(channel, &mut progress, stall),
            Ok(true) => Some(hear(channel)),
            Err(error) => Some(Error::Connection(error)),
        };
        if let Some(error) = heard {
            watch.abort();
            return Some(error);
        }
    }
    None
}

/// Whether the acknowledged bytes have stood still for too long; `progress` is their number and when it last changed.
fn stalled(channel: &Channel, progress: &mut (u64, Instant), stall: Duration) -> Option<Error> {
    let acknowledged = channel.bytes().acknowledged;
    if acknowledged != progress.0 {
        *progress = (acknowledged, Instant::now());
    }
    (progress.1.elapsed() >= stall).then_some(Error::Stalled(stall))
}

/// During the stream the destination has nothing to say but that it failed.
fn hear(channel: &Channel) -> Error {
    match channel.receive(LAST_WORDS_WAIT) {
        Ok(Message::Failed(failed)) => Error::Destination { step: failed.step, reason: failed.reason },
        Ok(other) => Error::Connection(transport::Error::Protocol(protocol::Error::Unexpected {
            expected: "Failed",
            got: other.name(),
        })),
        Err(error) => Error::Connection(error),
    }
}

/// The save failed by itself: perhaps because the destination closed, and it said why.
fn last_words(channel: &Channel) -> Option<Error> {
    match channel.wait_readable(CLOSED_WAIT) {
        Ok(true) => Some(hear(channel)),
        _ => None,
    }
}

/// How long a connection takes to show that it has ended. The domain may be suspended meanwhile.
const CLOSED_WAIT: Duration = Duration::from_secs(1);

/// How long the destination has to say the rest of a sentence, or why it has closed.
const LAST_WORDS_WAIT: Duration = Duration::from_secs(5);
