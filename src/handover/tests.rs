//! The machines as tables, and what must hold for any sequence of events.

use proptest::prelude::*;

use super::destination::{MAY_HAVE_GONE_ON, RUNS_WITHOUT_GO};
use super::source::{LOST_THERE, NO_LONGER_FITS, OUT_OF_PLACE, UNKNOWN_THERE};
use super::*;

const QUIET: Witness = Witness { connected: true, peer_primary: false, written: false };
const HELD: Witness = Witness { connected: true, peer_primary: true, written: false };
const BLIND: Witness = Witness { connected: false, peer_primary: false, written: false };
const WRITTEN: Witness = Witness { connected: true, peer_primary: false, written: true };

fn why() -> String {
    "cut".into()
}

mod source {
    use super::{DestinationStage as Stage, SourceAction as A, SourceEvent as E, *};

    fn run(events: impl IntoIterator<Item = E>) -> Vec<A> {
        from(Source::AwaitReady, events)
    }

    fn from(mut source: Source, events: impl IntoIterator<Item = E>) -> Vec<A> {
        events.into_iter().map(|event| step(&mut source, event)).collect()
    }

    fn step(source: &mut Source, event: E) -> A {
        let (next, action) = source.clone().step(event);
        *source = next;
        action
    }

    #[test]
    fn a_migration_that_goes_well() {
        let actions = run([E::Ready, E::Verified, E::Journaled, E::Started, E::Retired]);
        let expected = [A::Verify, A::Journal(SourceStage::Go), A::SendGo, A::Retire, A::Close(Ending::Moved)];
        assert_eq!(actions, expected);
    }

    #[test]
    fn whatever_fails_before_go_gives_the_domain_back_without_a_record() {
        let table = [
            (E::Lost(why()), "cut"),
            (E::Failed(why()), "cut"),
            (E::Refuted(why()), "cut"),
            (E::Cancelled, "Cancelled"),
            (E::Started, OUT_OF_PLACE),
            (E::Returned(why()), OUT_OF_PLACE),
        ];
        for (event, reason) in table {
            assert_eq!(run([event.clone()]), [A::TakeBack(reason.into())]);
            assert_eq!(
                run([E::Ready, event, E::TakenBack])[1..],
                [A::TakeBack(reason.into()), A::Close(Ending::Returned)]
            );
        }
    }

    #[test]
    fn a_record_that_may_be_on_disk_is_left_to_whoever_reads_it() {
        let failed = || E::NotJournaled("full".into());
        assert_eq!(run([E::Ready, E::Verified, failed()])[2], A::Leave("full".into()));
        assert_eq!(from(Source::Returning(why()), [failed()]), [A::Leave("full".into())]);
    }

    #[test]
    fn after_go_the_destination_decides() {
        let back = [A::Journal(SourceStage::Returned), A::TakeBack(why())];
        assert_eq!(from(Source::Committed, [E::Returned(why()), E::Journaled]), back);
        for event in [E::Lost(why()), E::Failed(why())] {
            assert_eq!(from(Source::Committed, [event]), [A::Ask(why())]);
        }
        assert_eq!(from(Source::Committed, [E::Cancelled]), [A::Wait]);
    }

    #[test]
    fn what_the_destinations_daemon_says() {
        let again = A::Ask(why());
        let back = A::Journal(SourceStage::Returned);
        let cold = A::Bury(NO_LONGER_FITS.into());
        let lost = Answer::Stage(Stage::Done(Ending::Lost));
        let table = [
            (Answer::Stage(Stage::Open), QUIET, again.clone()),
            (Answer::Stage(Stage::Ready), QUIET, again.clone()),
            (Answer::Stage(Stage::Held), QUIET, again.clone()),
            // It may still fail to start its copy.
            (Answer::Stage(Stage::Owned), HELD, again.clone()),
            (Answer::Stage(Stage::Started), HELD, A::Retire),
            (Answer::Stage(Stage::Done(Ending::Moved)), BLIND, A::Retire),
            (Answer::Stage(Stage::Aborted), HELD, back.clone()),
            (Answer::Stage(Stage::Done(Ending::Returned)), BLIND, back.clone()),
            (lost, QUIET, back.clone()),
            (lost, WRITTEN, cold),
            (lost, Witness { connected: false, ..WRITTEN }, A::Doubt(LOST_THERE.into())),
            (lost, BLIND, A::Doubt(LOST_THERE.into())),
            (Answer::Unreachable, QUIET, back),
            (Answer::Unreachable, HELD, again.clone()),
            (Answer::Unreachable, BLIND, again.clone()),
            (Answer::Unreachable, WRITTEN, again),
            (Answer::Unknown, QUIET, A::Doubt(UNKNOWN_THERE.into())),
        ];
        for (answer, witness, expected) in table {
            let actions = from(Source::Asking(why()), [E::Asked { answer, witness }]);
            assert_eq!(actions, [expected], "{answer:?} {witness:?}");
        }
    }

    #[test]
    fn the_operators_word_needs_a_disk_that_nobody_wrote() {
        let asking = || Source::Asking(why());
        assert_eq!(from(asking(), [E::PeerDead { witness: BLIND }]), [A::Journal(SourceStage::Returned)]);
        assert_eq!(from(asking(), [E::PeerDead { witness: WRITTEN }]), [A::Bury(NO_LONGER_FITS.into())]);
    }

    #[test]
    fn an_orphan_is_taken_up_where_its_journal_ends() {
        use {SourceSeen as Seen, SourceStage as S};
        let back = || A::TakeBack(INTERRUPTED.into());
        let ask = || A::Ask(INTERRUPTED.into());
        let lost = A::Close(Ending::Lost);
        let table = [
            (S::Open, [back(), back(), lost.clone()]),
            (S::Released, [back(), back(), lost.clone()]),
            (S::Go, [ask(), ask(), ask()]),
            (S::Returned, [back(), back(), lost]),
            (S::Done(Ending::Moved), [A::Wait, A::Wait, A::Wait]),
        ];
        for (stage, expected) in table {
            let seen = [Seen::Running, Seen::Suspended, Seen::Gone];
            assert_eq!(seen.map(|seen| Source::adopt(stage, seen).1), expected, "{stage:?}");
        }
    }

    #[test]
    fn a_domain_that_is_gone_is_not_taken_back() {
        assert_eq!(from(Source::TakingBack, [E::Gone]), [A::Close(Ending::Lost)]);
        let buried = [A::Bury(NO_LONGER_FITS.into()), A::Close(Ending::Lost)];
        assert_eq!(from(Source::TakingBack, [E::Written, E::Retired]), buried);
        assert_eq!(from(Source::Burying, [E::Stuck(why())]), [A::Leave(why())]);
        assert_eq!(from(Source::TakingBack, [E::Stuck(why())]), [A::Leave(why())]);
        assert_eq!(from(Source::Retiring, [E::Stuck(why())]), [A::Leave(why())]);
    }

    fn any_event() -> impl Strategy<Value = E> {
        let stages = [Stage::Ready, Stage::Owned, Stage::Started, Stage::Aborted, Stage::Done(Ending::Lost)];
        let answers = stages.map(Answer::Stage).into_iter().chain([Answer::Unknown, Answer::Unreachable]);
        let asked =
            answers.flat_map(|answer| [QUIET, HELD, BLIND, WRITTEN].map(|witness| E::Asked { answer, witness }));
        let dead = [BLIND, WRITTEN].map(|witness| E::PeerDead { witness });
        let plain = [
            E::Ready,
            E::Verified,
            E::Refuted(why()),
            E::Cancelled,
            E::Failed(why()),
            E::Lost(why()),
            E::Started,
            E::Returned(why()),
            E::Journaled,
            E::NotJournaled(why()),
            E::TakenBack,
            E::Gone,
            E::Written,
            E::Retired,
            E::Stuck(why()),
        ];
        prop_oneof![prop::sample::select(plain.to_vec()), prop::sample::select(asked.chain(dead).collect::<Vec<_>>()),]
    }

    proptest! {
        /// I2: after GO was asked for the source takes its domain back by a journaled RETURNED alone; it sends GO at most
        /// once, never retires before, and never does both.
        #[test]
        fn after_go_only_a_journaled_return_takes_back(events in prop::collection::vec(any_event(), 0..16)) {
            let (mut source, mut promised, mut sent, mut returned, mut ended) = (Source::AwaitReady, false, false, false, false);
            for event in events {
                let record = source.clone();
                let action = step(&mut source, event.clone());
                returned |= matches!(record, Source::Returning(_)) && event == E::Journaled;
                match action {
                    A::Journal(SourceStage::Go) => { prop_assert!(!promised); promised = true; }
                    A::SendGo => { prop_assert!(promised && !sent); sent = true; }
                    A::TakeBack(_) => { prop_assert!(!ended && (!promised || returned)); ended = true; }
                    A::Retire => { prop_assert!(!ended && sent && !returned); ended = true; }
                    A::Bury(_) => prop_assert!(ended || promised),
                    _ => {}
                }
            }
        }
    }
}

mod destination {
    use super::{DestinationAction as A, DestinationEvent as E, DestinationStage as Stage, *};

    fn from(mut machine: Destination, events: impl IntoIterator<Item = E>) -> Vec<A> {
        events.into_iter().map(|event| step(&mut machine, event)).collect()
    }

    fn step(machine: &mut Destination, event: E) -> A {
        let (next, action) = machine.clone().step(event);
        *machine = next;
        action
    }

    #[test]
    fn a_migration_that_goes_well() {
        let events = [
            (E::Complete, A::Journal(Stage::Ready)),
            (E::Journaled, A::SendReady),
            (E::Held, A::Wait),
            (E::Go, A::Journal(Stage::Owned)),
            (E::Journaled, A::Start),
            (E::Running, A::ReportStarted),
            (E::Reported, A::Journal(Stage::Started)),
            (E::Journaled, A::Finish),
            (E::Finished, A::Close(Ending::Moved)),
        ];
        let (events, expected): (Vec<E>, Vec<A>) = events.into_iter().unzip();
        assert_eq!(from(Destination::Restoring, events), expected);
    }

    #[test]
    fn whatever_fails_before_ready_discards_the_copy_even_without_a_record() {
        let aborted = A::Journal(Stage::Aborted);
        for event in [E::Failed(why()), E::Lost(why())] {
            for journaled in [E::Journaled, E::NotJournaled("full".into())] {
                let actions = from(Destination::Restoring, [event.clone(), journaled, E::Discarded]);
                assert_eq!(actions, [aborted.clone(), A::Discard(why()), A::Close(Ending::Returned)]);
            }
        }
        let actions = from(Destination::Promising, [E::NotJournaled(why()), E::NotJournaled("full".into())]);
        assert_eq!(actions, [aborted, A::Discard(why())]);
    }

    #[test]
    fn a_copy_that_does_not_start_is_given_back() {
        let actions = from(Destination::Starting, [E::NotStarted(why()), E::Journaled, E::Discarded]);
        let expected = [A::Journal(Stage::Aborted), A::DiscardAndReturn(why()), A::Close(Ending::Returned)];
        assert_eq!(actions, expected);
    }

    #[test]
    fn a_record_that_may_be_on_disk_is_left_to_whoever_reads_it() {
        let aborting = |promised| Destination::Aborting { why: why(), promised };
        let states = [
            Destination::Noting(why()),
            Destination::Owning,
            Destination::Recording,
            aborting(Promised::Ready),
            aborting(Promised::Owned),
        ];
        for state in states {
            assert_eq!(from(state, [E::NotJournaled("full".into())]), [A::Leave("full".into())]);
        }
        for state in [Destination::Finishing, Destination::Discarding] {
            assert_eq!(from(state, [E::Stuck(why())]), [A::Leave(why())]);
        }
    }

    #[test]
    fn what_the_sources_daemon_says() {
        let (forward, back) = (A::Journal(Stage::Owned), A::Journal(Stage::Aborted));
        let table = [
            (Answer::Stage(SourceStage::Open), false, back.clone()),
            (Answer::Stage(SourceStage::Released), false, back.clone()),
            (Answer::Stage(SourceStage::Go), false, forward.clone()),
            (Answer::Stage(SourceStage::Go), true, forward),
            (Answer::Stage(SourceStage::Returned), false, back.clone()),
            (Answer::Stage(SourceStage::Done(Ending::Returned)), false, back.clone()),
            (Answer::Unknown, false, back.clone()),
            (Answer::Unreachable, true, back),
            (Answer::Unreachable, false, A::Ask(why())),
        ];
        for (answer, replication_up, expected) in table {
            for held in [true, false] {
                let asking = Destination::Asking { why: why(), held };
                let actions = from(asking, [E::Asked { answer, replication_up }]);
                assert_eq!(actions, std::slice::from_ref(&expected), "{answer:?} {replication_up}");
            }
        }
    }

    #[test]
    fn the_operators_word_needs_a_source_that_held_the_domain() {
        let (forward, doubt) = (A::Journal(Stage::Owned), A::Doubt(MAY_HAVE_GONE_ON.into()));
        let dead = |written| E::PeerDead { written };
        assert_eq!(from(Destination::AwaitGo, [E::Lost(why()), dead(false)]), [A::Ask(why()), doubt.clone()]);
        let held = [A::Wait, A::Journal(Stage::Held), A::Ask(why())];
        let actions = from(Destination::AwaitGo, [E::Held, E::Lost(why()), E::Journaled, dead(false)]);
        assert_eq!((&actions[..3], &actions[3]), (&held[..], &forward));
        let actions = from(Destination::AwaitGo, [E::Held, E::Lost(why()), E::Journaled, dead(true)]);
        assert_eq!((&actions[..3], &actions[3]), (&held[..], &doubt));
        assert_eq!(from(Destination::AwaitGo, [dead(false)]), [A::Wait]);
        let adopted = |stage| Destination::adopt(stage, DestinationSeen::Paused).0;
        assert_eq!(from(adopted(Stage::Ready), [dead(false)]), [doubt]);
        assert_eq!(from(adopted(Stage::Held), [dead(false)]), [forward]);
    }

    #[test]
    fn an_orphan_is_taken_up_where_its_journal_ends() {
        use DestinationSeen as Seen;
        let abort = || A::Journal(Stage::Aborted);
        let discard = || A::Discard(INTERRUPTED.into());
        let table = [
            (Stage::Open, [abort(), abort(), abort()]),
            (Stage::Ready, [A::Ask(INTERRUPTED.into()), A::Doubt(RUNS_WITHOUT_GO.into()), abort()]),
            (Stage::Held, [A::Ask(INTERRUPTED.into()), A::Doubt(RUNS_WITHOUT_GO.into()), abort()]),
            (Stage::Owned, [A::Start, A::Journal(Stage::Started), A::Close(Ending::Lost)]),
            (Stage::Started, [A::Finish, A::Finish, A::Finish]),
            (Stage::Aborted, [discard(), discard(), discard()]),
            (Stage::Done(Ending::Moved), [A::Wait, A::Wait, A::Wait]),
        ];
        for (stage, expected) in table {
            let seen = [Seen::Paused, Seen::Running, Seen::Gone];
            assert_eq!(seen.map(|seen| Destination::adopt(stage, seen).1), expected, "{stage:?}");
        }
    }

    fn any_event() -> impl Strategy<Value = E> {
        let asked = [SourceStage::Released, SourceStage::Go, SourceStage::Returned].map(Answer::Stage);
        let asked = asked.into_iter().chain([Answer::Unknown, Answer::Unreachable]);
        let asked = asked.flat_map(|answer| [true, false].map(|replication_up| E::Asked { answer, replication_up }));
        let plain = [
            E::Complete,
            E::Failed(why()),
            E::Go,
            E::Lost(why()),
            E::Journaled,
            E::NotJournaled(why()),
            E::Held,
            E::PeerDead { written: false },
            E::PeerDead { written: true },
            E::Running,
            E::NotStarted(why()),
            E::Reported,
            E::Finished,
            E::Discarded,
            E::Stuck(why()),
        ];
        prop::sample::select(asked.chain(plain).collect::<Vec<_>>())
    }

    proptest! {
        /// Of OWNED and ABORTED the first counts: the copy is started once and by OWNED alone, and one that ran stays.
        #[test]
        fn a_copy_is_started_or_discarded(events in prop::collection::vec(any_event(), 0..16)) {
            let (mut machine, mut owned, mut started, mut discarded) = (Destination::Restoring, false, false, false);
            for event in events {
                let record = machine.clone();
                let ran = started && record == Destination::Starting && event == E::Running;
                let action = step(&mut machine, event.clone());
                owned |= record == Destination::Owning && event == E::Journaled;
                match action {
                    A::Start => { prop_assert!(owned && !started && !discarded); started = true; }
                    A::Discard(_) => { prop_assert!(!owned && !discarded); discarded = true; }
                    A::DiscardAndReturn(_) => { prop_assert!(owned && !discarded); discarded = true; }
                    A::ReportStarted => prop_assert!(ran && !discarded),
                    _ => {}
                }
            }
        }
    }
}
