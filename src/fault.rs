//! Fault injection: a migration fails on purpose at a named step, so that anyone can rehearse what then happens.
//!
//! One step for each arrow of the migration. Nothing is armed unless `--fail-at` says so; each fault strikes once.

use std::fs;
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::toolstack::Error;

/// Declares each step once: its name on the command line and what has just happened there.
macro_rules! steps {
    ($($(#[$doc:meta])* $name:literal => $step:ident),* $(,)?) => {
        /// A step of a migration, named after what has just been done.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Step {
            $($(#[$doc])* $step,)*
        }

        impl Step {
            /// All steps, the source's first, each end's in the order in which they come.
            pub const ALL: [Step; [$(Step::$step,)*].len()] = [$(Step::$step,)*];

            /// Its name on the command line.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Step::$step => $name,)* }
            }
        }
    };
}

steps! {
    /// Source: both ends have found nothing against it; nothing is journaled yet.
    "s-cleared" => SourceCleared,
    /// Source: the journal is open.
    "s-opened" => SourceOpened,
    /// Source: the stream is announced; libxl has not begun.
    "s-stream" => SourceStream,
    /// Source: the stream has ended; the domain is suspended.
    "s-suspended" => SourceSuspended,
    /// Source: RELEASED (or KEPT) is journaled; the volumes are as they were.
    "s-journaled-released" => SourceJournaledReleased,
    /// Source: it is Secondary (single-primary); nobody has been told.
    "s-released" => SourceReleased,
    /// Source: RELEASED or KEPT is sent.
    "s-sent-released" => SourceSentReleased,
    /// Source: READY has come.
    "s-ready" => SourceReady,
    /// Source: the witnesses have agreed and the domain's name is out of the way.
    "s-verified" => SourceVerified,
    /// Source: GO is journaled; it is not sent.
    "s-journaled-go" => SourceJournaledGo,
    /// Source: GO is sent.
    "s-sent-go" => SourceSentGo,
    /// Source: STARTED has come.
    "s-started" => SourceStarted,
    /// Source: its copy is destroyed; the end is not journaled.
    "s-retired" => SourceRetired,
    /// Destination: the journal is open, the offer is answered.
    "d-accepted" => DestinationAccepted,
    /// Destination: the stream is announced; libxl has not begun.
    "d-stream" => DestinationStream,
    /// Destination: RELEASED or KEPT has come; no volume has been granted.
    "d-released" => DestinationReleased,
    /// Destination: the copy is complete and holds its volumes; READY is not journaled.
    "d-complete" => DestinationComplete,
    /// Destination: READY is journaled; it is not sent.
    "d-journaled-ready" => DestinationJournaledReady,
    /// Destination: READY is sent.
    "d-sent-ready" => DestinationSentReady,
    /// Destination: GO has come; OWNED is not journaled.
    "d-go" => DestinationGo,
    /// Destination: OWNED is journaled; the copy is paused.
    "d-journaled-owned" => DestinationJournaledOwned,
    /// Destination: the domain runs; STARTED is not journaled.
    "d-running" => DestinationRunning,
    /// Destination: STARTED is journaled; nobody has been told.
    "d-started" => DestinationStarted,
    /// Destination: STARTED is sent.
    "d-sent-started" => DestinationSentStarted,
}

/// How it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The process is killed (SIGKILL).
    Kill,
    /// The process does nothing until the file that announces the fault is taken away; then it goes on.
    Hang,
    /// The step fails with an error.
    Error,
}

/// One fault: where and how, as `STEP`, `STEP:kill`, `STEP:error` or `STEP:hang`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub step: Step,
    /// How; killed unless it is said.
    pub kind: Kind,
}

/// A fault that is not one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParseError {
    /// No step has this name.
    #[error("No step is called {0}; the steps are: {names}", names = names())]
    Step(String),
    /// A step does not fail in this way.
    #[error("A step fails by kill, error or hang, not by {0}")]
    Kind(String),
}

fn names() -> String {
    Step::ALL.iter().map(|step| step.name()).collect::<Vec<_>>().join(", ")
}

/// Between two looks at whether a hang is over.
const HANG_INTERVAL: Duration = Duration::from_millis(20);

impl FromStr for Fault {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Fault, ParseError> {
        let (name, kind) = text.split_once(':').unwrap_or((text, "kill"));
        let step = Step::ALL.iter().find(|step| step.name() == name).ok_or_else(|| ParseError::Step(name.into()))?;
        let kind = match kind {
            "kill" => Kind::Kill,
            "error" => Kind::Error,
            "hang" => Kind::Hang,
            _ => return Err(ParseError::Kind(kind.into())),
        };
        Ok(Fault { step: *step, kind })
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            Kind::Kill => "kill",
            Kind::Error => "error",
            Kind::Hang => "hang",
        };
        write!(f, "{}:{kind}", self.step.name())
    }
}

/// The fault that is armed in this process, if any.
#[derive(Debug)]
pub struct Faults {
    armed: Option<Fault>,
    struck: AtomicBool,
    die: fn(),
}

fn die() {
    // SIGKILL to oneself does not fail.
    let _ = kill(Pid::this(), Signal::SIGKILL);
}

impl Faults {
    /// None: how every program runs that was not told otherwise.
    #[must_use]
    pub const fn none() -> Faults {
        Faults { armed: None, struck: AtomicBool::new(false), die }
    }

    /// Arms one fault, or none.
    #[must_use]
    pub fn new(armed: Option<Fault>) -> Faults {
        Faults { armed, struck: AtomicBool::new(false), die }
    }

    /// The same, but a process that is to be killed does this instead: a test's, which runs both ends in one process, panics.
    #[must_use]
    pub fn dying_by(self, die: fn()) -> Faults {
        Faults { die, ..self }
    }

    /// A step has been reached: fails here if that is what was asked for. A file `fault-STEP` in `dir` announces it, for whoever waits
    /// for the moment to pull a cable; taking the file away ends a hang.
    ///
    /// # Errors
    /// The armed error.
    pub fn reach(&self, step: Step, dir: &Path) -> Result<(), Error> {
        match self.armed {
            Some(fault) if fault.step == step && !self.struck.swap(true, Ordering::Relaxed) => self.strike(fault, dir),
            _ => Ok(()),
        }
    }

    fn strike(&self, fault: Fault, dir: &Path) -> Result<(), Error> {
        tracing::error!(%fault, "fails on purpose");
        let announcement = dir.join(format!("fault-{}", fault.step.name()));
        fs::write(&announcement, fault.to_string())?;
        match fault.kind {
            Kind::Error => return Err(format!("Failed on purpose ({fault})").into()),
            Kind::Hang => {
                while announcement.exists() {
                    std::thread::sleep(HANG_INTERVAL);
                }
            }
            Kind::Kill => (self.die)(),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_read_as_it_is_printed() {
        for text in ["s-journaled-go:kill", "d-sent-ready:hang", "s-released:error"] {
            assert_eq!(text.parse::<Fault>().expect("a fault").to_string(), text);
        }
        assert_eq!("d-go".parse::<Fault>().expect("a fault").kind, Kind::Kill);
        assert!("s-go".parse::<Fault>().expect_err("no such step").to_string().contains("s-sent-go"));
        assert_eq!("d-go:explode".parse::<Fault>(), Err(ParseError::Kind("explode".into())));
    }

    #[test]
    fn an_armed_fault_strikes_once_and_at_its_step_only() {
        let dir = tempfile::tempdir().expect("a directory");
        let faults = Faults::new(Some("s-released:error".parse().expect("a fault")));
        assert!(faults.reach(Step::SourceReady, dir.path()).is_ok());
        assert!(faults.reach(Step::SourceReleased, dir.path()).is_err());
        assert!(faults.reach(Step::SourceReleased, dir.path()).is_ok());
        assert!(dir.path().join("fault-s-released").exists());
    }
}
