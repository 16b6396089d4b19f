//! Model checking of the handover and of recovery: the machines that the programs run, with both journals, the messages
//! between them, DRBD and both copies of the domain around them. Every interleaving of messages, losses, crashes, power
//! cuts, failed writes and repairs is explored, up to a number of faults; invariants I1 to I5 are checked in each state.

#![expect(clippy::print_stdout, reason = "the figures are what a reader of the test wants")]

mod bugs;
mod destination;
mod faults;
mod handover;
mod settle;
mod source;
mod world;

use std::collections::BTreeSet;
use std::time::Instant;

use bascule::protocol::Handover as Kind;
use stateright::{Checker, HasDiscoveries, Model};

use self::handover::{Handover, Rules};

/// Every set of three faults in every order; `the_handover_holds_under_more_faults` has more patience.
const FAULTS: u8 = 3;
const FAULTS_MORE: u8 = 4;
/// No planted bug needs more.
const FAULTS_OF_BUGS: u8 = 2;

#[test]
fn the_handover_holds() {
    [Kind::Single, Kind::Dual].into_iter().for_each(|kind| hold(kind, FAULTS));
}

#[test]
#[ignore = "takes a while: cargo test --release --test model -- --include-ignored"]
fn the_handover_holds_under_more_faults() {
    [Kind::Single, Kind::Dual].into_iter().for_each(|kind| hold(kind, FAULTS_MORE));
}

fn hold(kind: Kind, faults: u8) {
    let began = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let checker = Handover { kind, rules: bugs::NONE, faults }.checker().threads(threads).spawn_bfs().join();
    let violations = checker.discoveries().keys().filter(|property| is_invariant(property)).count();
    println!(
        "{kind}, {faults} faults: {} states, {} transitions, depth {}, {violations} violations, {:.1} s",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        began.elapsed().as_secs_f32()
    );
    checker.assert_properties();
}

#[test]
fn each_planted_bug_is_found() {
    for (bug, rules) in bugs::PLANTED {
        let broken = broken(rules);
        assert!(!broken.is_empty(), "Not found: {bug}");
        println!("{bug}:");
        for property in broken {
            println!("  breaks \"{property}\" in {} steps", shortest(rules, property));
        }
    }
}

/// The invariants that are the first to be seen broken.
fn broken(rules: Rules) -> BTreeSet<&'static str> {
    let model = Handover { kind: Kind::Single, rules, faults: FAULTS_OF_BUGS };
    let checker = model.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    checker.discoveries().into_keys().filter(|property| is_invariant(property)).collect()
}

/// The checker keeps the last counterexample that it meets: one that is shorter is looked for until there is none.
fn shortest(rules: Rules, property: &'static str) -> usize {
    let model = || Handover { kind: Kind::Single, rules, faults: FAULTS_OF_BUGS }.checker();
    let met = || HasDiscoveries::AnyOf(BTreeSet::from([property]));
    let mut found = model().finish_when(met()).spawn_bfs().join().discovery(property);
    let mut steps = 0;
    while let Some(path) = found {
        steps = path.into_actions().len();
        found = model().finish_when(met()).target_max_depth(steps + 1).spawn_bfs().join().discovery(property);
    }
    steps
}

fn is_invariant(property: &str) -> bool {
    property.starts_with('I')
}
