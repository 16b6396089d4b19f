//! The story of a migration, both ends over a real connection, on stand-ins for Xen and DRBD that check the invariants at
//! every change. One row for each thing that can fail.

#[path = "story/hosts.rs"]
mod hosts;
#[path = "story/world.rs"]
mod world;

use std::sync::Arc;

use bascule::checkup::ask::Answer;
use bascule::fault::{self, Step};
use bascule::migrate::Outcome;
use bascule::protocol::Handover;
use bascule::receive::Ended;
use bascule::replication::Attachment;
use hosts::Hosts;
use world::{Fault, Rest, World};

/// Runs both ends to their rest.
fn run(world: &Arc<World>, handover: Option<Handover>) -> (Outcome, Ended) {
    let hosts = Hosts::new(world, [None, None]);
    let (outcome, mut ended) = hosts.run(handover);
    (outcome.expect("nobody died"), ended.remove(0))
}

fn at_source() -> Rest {
    Rest {
        running_at: vec![0],
        domains_at: [1, 0],
        primary_at: vec![0],
        alone_at: vec![],
        two_allowed: false,
        both_primary_seen: false,
        alone_seen: false,
    }
}

fn at_destination_rest() -> Rest {
    Rest { running_at: vec![1], domains_at: [0, 1], primary_at: vec![1], ..at_source() }
}

#[test]
fn a_domain_moves_with_never_two_primaries() {
    let world = World::new(&[], Attachment::Layer);
    let (outcome, ended) = run(&world, None);
    let Outcome::Moved(receipt) = outcome else { panic!("{outcome:?}") };
    assert!(matches!(ended, Ended::Moved(_)), "{ended:?}");
    assert_eq!(receipt.handover, Handover::Single);
    assert_eq!(receipt.single_writer.source_sectors, 0);
    assert!(receipt.warnings.is_empty(), "{:?}", receipt.warnings);
    assert_eq!(world.rest(), at_destination_rest());
}

#[test]
fn a_disk_attached_by_path_moves_with_two_primaries_and_the_permission_is_taken_back() {
    let world = World::new(&[], Attachment::Direct);
    let (outcome, _) = run(&world, None);
    assert!(matches!(&outcome, Outcome::Moved(receipt) if receipt.handover == Handover::Dual), "{outcome:?}");
    assert_eq!(world.rest(), Rest { both_primary_seen: true, ..at_destination_rest() });
}

#[test]
fn single_primary_is_refused_where_a_disk_is_attached_by_path() {
    let world = World::new(&[], Attachment::Direct);
    let (outcome, _) = run(&world, Some(Handover::Single));
    let Outcome::Refused(findings) = outcome else { panic!("{outcome:?}") };
    assert_eq!(findings[0].code, "attached-directly");
    assert_eq!(world.rest(), at_source());
}

#[test]
fn whatever_fails_the_domain_runs_on_at_the_source_and_the_destination_is_clean() {
    use Fault as F;
    let rows = [
        F::SaveBeforeSuspend,
        F::SaveAfterSuspend,
        F::WaitIdle,
        F::Withdraw,
        F::Demote,
        F::RestoreOfMemory,
        F::Promote,
        F::RestoreOfDevices,
        F::ForeignWrite,
        F::RenameAtSource,
        F::RenameAtDestination,
        F::Unpause,
    ];
    for fault in rows {
        let world = World::new(&[fault], Attachment::Layer);
        let (outcome, _) = run(&world, None);
        assert!(matches!(outcome, Outcome::RolledBack { .. }), "{fault:?}: {outcome:?}");
        assert_eq!(world.rest(), at_source(), "{fault:?}");
    }
}

#[test]
fn the_same_holds_for_the_dual_primary_handover() {
    use Fault as F;
    for fault in [F::WaitIdle, F::RestoreOfMemory, F::Promote, F::RestoreOfDevices, F::RenameAtSource, F::Unpause] {
        let world = World::new(&[fault], Attachment::Layer);
        let (outcome, _) = run(&world, Some(Handover::Dual));
        assert!(matches!(outcome, Outcome::RolledBack { .. }), "{fault:?}: {outcome:?}");
        let rest = world.rest();
        assert_eq!(rest, Rest { both_primary_seen: rest.both_primary_seen, ..at_source() }, "{fault:?}");
    }
}

#[test]
fn the_source_forbids_two_primaries_where_the_destination_did_not() {
    for faults in [&[Fault::ForbidAtDestination][..], &[Fault::ForbidAtDestination, Fault::RestoreOfDevices]] {
        let world = World::new(faults, Attachment::Layer);
        let (outcome, _) = run(&world, Some(Handover::Dual));
        assert!(!matches!(outcome, Outcome::Indeterminate { .. }), "{faults:?}: {outcome:?}");
        assert!(!world.rest().two_allowed, "{faults:?}: {outcome:?}");
    }
}

#[test]
fn a_source_that_keeps_what_it_offered_to_release_gets_no_second_primary() {
    let world = World::new(&[], Attachment::Layer);
    let ended = Hosts::new(&world, [None, None]).one_that_keeps();
    assert!(matches!(ended, Ended::Discarded(_)), "{ended:?}");
    assert_eq!(world.rest(), at_source());
}

#[test]
fn a_host_that_is_asked_what_it_is_like_tells_and_changes_nothing() {
    let world = World::new(&[], Attachment::Layer);
    let before = world.rest();
    let answer = Hosts::new(&world, [None, None]).asked();
    let Answer::Met(meeting) = answer else { panic!("{answer:?}") };
    assert_eq!(meeting.theirs.node, "node2");
    // A stand-in tells nothing of Xen: that is a fact like another.
    assert!(meeting.theirs.xen.is_err() && meeting.theirs.drbd.is_err());
    assert_eq!(world.rest(), before);
}

#[test]
fn preflight_refuses_with_nothing_changed() {
    let world = World::new(&[], Attachment::Layer);
    world.take_name();
    world.take_memory();
    let (outcome, _) = run(&world, None);
    let Outcome::Refused(findings) = outcome else { panic!("{outcome:?}") };
    let codes: Vec<&str> = findings.iter().map(|finding| finding.code.as_str()).collect();
    assert_eq!(codes, ["name-taken", "memory", "in-clear"]);
    assert_eq!(world.rest().primary_at, [0]);
}

/// A process dies at every step of either end; the daemons finish, or take back, what it was doing.
#[test]
fn whichever_process_dies_one_copy_lives_and_nothing_is_left() {
    for (handover, step) in [Handover::Single, Handover::Dual].into_iter().flat_map(|h| Step::ALL.map(move |s| (h, s)))
    {
        let fault = fault::Fault { step, kind: fault::Kind::Kill };
        let at_destination = step.name().starts_with("d-");
        let world = World::new(&[], Attachment::Layer);
        let hosts = Hosts::new(&world, if at_destination { [None, Some(fault)] } else { [Some(fault), None] });
        let (outcome, _) = hosts.run(Some(handover));
        let rest = world.rest();
        let [source, destination] = [at_source(), at_destination_rest()]
            .map(|expected| Rest { both_primary_seen: rest.both_primary_seen, ..expected });
        assert!(rest == source || rest == destination, "{handover} {fault}: {rest:?}");
        assert!(handover == Handover::Dual || !rest.both_primary_seen, "{handover} {fault}: two Primaries");
        if let Some(Outcome::Moved(_)) = outcome {
            assert_eq!(rest, destination, "{handover} {fault}");
        }
    }
}

/// DRBD may find the split brain when the end that keeps its data has closed its journal: nobody works on it there any more, so
/// the other end's question must call it.
#[test]
fn an_end_that_is_done_connects_again_when_the_other_one_calls() {
    let world = World::new(&[Fault::SplitBrain], Attachment::Layer);
    // The destination is done when the connection has gone; what is left is the source's daemon's.
    let killed = fault::Fault { step: Step::SourceStarted, kind: fault::Kind::Kill };
    let hosts = Hosts::new(&world, [Some(killed), None]);
    let (outcome, _) = hosts.run(Some(Handover::Dual));
    assert!(outcome.is_none(), "the source lived: {outcome:?}");
    assert_eq!(world.rest(), Rest { both_primary_seen: true, alone_seen: true, ..at_destination_rest() });
}
