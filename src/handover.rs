//! Handover: ready -> GO -> report, as two pure state machines. Only an action from here makes the source send GO.
//!
//! Before GO every failure makes the source take its domain back; after it only the destination's report decides
//! (invariant I2). The programs run these machines, and so do the tests below.

/// The source, from the end of the stream on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The domain is suspended here; the destination builds its copy.
    AwaitReady,
    /// The destination is ready; the witnesses are being asked.
    Verifying,
    /// GO may have reached the destination: its report alone decides.
    Committed,
    /// Nothing more will be done by this machine.
    Over,
}

/// What can happen to the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceEvent {
    /// The destination's copy is complete and paused.
    Ready,
    /// The volumes are as they should be, nobody has written since the domain was suspended, and its name is out of the way.
    Verified,
    /// A witness disagrees.
    Refuted(String),
    /// The user wants the migration stopped.
    Cancelled,
    /// The destination gave up before GO.
    Failed(String),
    /// The connection ended or nothing came in time.
    Lost(String),
    /// The domain runs at the destination.
    Started,
    /// The destination could not start its copy, which never ran and is gone.
    Returned(String),
}

/// What the source does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceAction {
    /// Ask the witnesses, then rename the domain out of the way.
    Verify,
    /// Send GO.
    Go,
    /// Take the volumes back and resume the domain.
    TakeBack(String),
    /// Destroy the suspended copy: the domain lives at the destination.
    Retire,
    /// Keep the domain suspended and say so: nobody here can know whether the destination runs it.
    Doubt(String),
    /// Nothing.
    Wait,
}

impl Source {
    /// One step.
    pub fn step(self, event: SourceEvent) -> (Source, SourceAction) {
        use SourceEvent as E;
        match (self, event) {
            (Source::AwaitReady, E::Ready) => (Source::Verifying, SourceAction::Verify),
            (Source::Verifying, E::Verified) => (Source::Committed, SourceAction::Go),
            (Source::Committed, E::Started) => (Source::Over, SourceAction::Retire),
            (Source::Committed, E::Returned(why)) => (Source::Over, SourceAction::TakeBack(why)),
            (Source::Committed, E::Cancelled) => (Source::Committed, SourceAction::Wait),
            (Source::Committed, E::Lost(why) | E::Failed(why) | E::Refuted(why)) => {
                (Source::Over, SourceAction::Doubt(why))
            }
            (Source::Committed, E::Ready | E::Verified) => (Source::Over, SourceAction::Doubt(OUT_OF_PLACE.into())),
            (Source::Over, _) => (Source::Over, SourceAction::Wait),
            (_, E::Refuted(why) | E::Failed(why) | E::Lost(why)) => (Source::Over, SourceAction::TakeBack(why)),
            (_, E::Cancelled) => (Source::Over, SourceAction::TakeBack("Cancelled".into())),
            (_, E::Ready | E::Verified | E::Started | E::Returned(_)) => {
                (Source::Over, SourceAction::TakeBack(OUT_OF_PLACE.into()))
            }
        }
    }
}

/// The destination, from its complete copy on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The copy is paused and READY is said.
    AwaitGo,
    /// GO came: the copy is being started.
    Starting,
    /// Nothing more will be done by this machine.
    Over,
}

/// What can happen to the destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DestinationEvent {
    /// The source handed the domain over.
    Go,
    /// The connection ended, or something else than GO came, or nothing in time.
    Lost(String),
    /// The domain runs.
    Running,
    /// The domain could not be started and no virtual CPU has run.
    NotStarted(String),
}

/// What the destination does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DestinationAction {
    /// Rename the copy to the domain's name and unpause it.
    Start,
    /// Destroy the copy and release its volumes; the source has or takes its domain back.
    Discard(String),
    /// Tell the source that the domain runs.
    ReportStarted,
    /// Destroy the copy, release its volumes, then tell the source that it may have its domain back.
    DiscardAndReturn(String),
    /// Nothing.
    Wait,
}

impl Destination {
    /// One step.
    pub fn step(self, event: DestinationEvent) -> (Destination, DestinationAction) {
        use DestinationEvent as E;
        match (self, event) {
            (Destination::AwaitGo, E::Go) => (Destination::Starting, DestinationAction::Start),
            (Destination::AwaitGo, E::Lost(why) | E::NotStarted(why)) => {
                (Destination::Over, DestinationAction::Discard(why))
            }
            (Destination::Starting, E::Running) => (Destination::Over, DestinationAction::ReportStarted),
            (Destination::Starting, E::NotStarted(why)) => {
                (Destination::Over, DestinationAction::DiscardAndReturn(why))
            }
            (state, _) => (state, DestinationAction::Wait),
        }
    }
}

/// A peer that sends what cannot come is not followed.
const OUT_OF_PLACE: &str = "The destination sent a message out of place";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(events: impl IntoIterator<Item = SourceEvent>) -> Vec<SourceAction> {
        let mut source = Source::AwaitReady;
        events.into_iter().map(|event| step(&mut source, event)).collect()
    }

    fn step(source: &mut Source, event: SourceEvent) -> SourceAction {
        let (next, action) = source.step(event);
        *source = next;
        action
    }

    #[test]
    fn a_migration_that_goes_well() {
        let actions = run([SourceEvent::Ready, SourceEvent::Verified, SourceEvent::Started]);
        assert_eq!(actions, [SourceAction::Verify, SourceAction::Go, SourceAction::Retire]);
    }

    #[test]
    fn whatever_fails_before_go_gives_the_domain_back() {
        let lost = || SourceEvent::Lost("cut".into());
        let back = SourceAction::TakeBack("cut".into());
        assert_eq!(run([lost()]), std::slice::from_ref(&back));
        assert_eq!(run([SourceEvent::Ready, lost()]), [SourceAction::Verify, back]);
        let refuted = run([SourceEvent::Ready, SourceEvent::Refuted("written".into())]);
        assert_eq!(refuted[1], SourceAction::TakeBack("written".into()));
    }

    #[test]
    fn a_report_without_go_is_not_believed() {
        assert_eq!(run([SourceEvent::Started]), [SourceAction::TakeBack(OUT_OF_PLACE.into())]);
    }

    fn any_event() -> impl Strategy<Value = SourceEvent> {
        prop_oneof![
            Just(SourceEvent::Ready),
            Just(SourceEvent::Verified),
            Just(SourceEvent::Refuted("r".into())),
            Just(SourceEvent::Cancelled),
            Just(SourceEvent::Failed("f".into())),
            Just(SourceEvent::Lost("l".into())),
            Just(SourceEvent::Started),
            Just(SourceEvent::Returned("b".into())),
        ]
    }

    proptest! {
        /// I2: after GO the source takes its domain back on the destination's own word alone.
        #[test]
        fn after_go_only_returned_takes_back(events in prop::collection::vec(any_event(), 0..12)) {
            let (mut source, mut gone, mut retired) = (Source::AwaitReady, false, false);
            for event in events {
                let returned = matches!(event, SourceEvent::Returned(_));
                match step(&mut source, event) {
                    SourceAction::Go => { prop_assert!(!gone); gone = true; }
                    SourceAction::TakeBack(_) => prop_assert!(!retired && (!gone || returned)),
                    SourceAction::Retire => { prop_assert!(gone); retired = true; }
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn the_destination_starts_on_go_alone_and_once() {
        let (state, action) = Destination::AwaitGo.step(DestinationEvent::Go);
        assert_eq!(action, DestinationAction::Start);
        assert_eq!(state.step(DestinationEvent::Go), (Destination::Starting, DestinationAction::Wait));
        let (state, action) = Destination::AwaitGo.step(DestinationEvent::Lost("cut".into()));
        assert_eq!(action, DestinationAction::Discard("cut".into()));
        assert_eq!(state.step(DestinationEvent::Go), (Destination::Over, DestinationAction::Wait));
    }
}
