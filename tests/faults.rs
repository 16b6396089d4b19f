//! What dies, and when: every step of a migration meets every blow, in the lab, by `cargo xtask test`.
//!
//! After each, at most one copy of the domain has run at any moment, nothing that was fsynced is lost, roles, settings and
//! connections are as they were, and all that by itself. `BASCULE_FAULTS` chooses the cells: `sample`, `all`, or a part of
//! their names; `BASCULE_SEED` replays the random ones.

#![expect(clippy::print_stdout, reason = "the table is the result")]

#[path = "faults/blow.rs"]
mod blow;
#[path = "faults/cell.rs"]
mod cell;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use bascule_lab::Lab;
use bascule_lab::pair::Pair;
use cell::{Cell, Row};

/// Cells that are always taken: the moments in which other tools lose a domain.
const FIXED: [&str; 11] = [
    "single s-released source-killed",
    "single s-journaled-go source-killed",
    "single d-sent-ready worker-killed",
    "single d-journaled-owned worker-killed",
    "single d-running destination-off",
    "single s-sent-go relocation-cut",
    "dual d-sent-ready both-cut-and-restored",
    "single d-go source-off",
    "dual s-verified destination-off",
    "dual s-verified both-cut",
    "dual s-sent-released source-off",
];
/// Random ones beside them.
const RANDOM: usize = 3;

#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn whatever_dies_one_copy_lives() {
    let wanted = std::env::var("BASCULE_FAULTS").unwrap_or_else(|_| "sample".into());
    let cells = part_of(chosen(&wanted));
    assert!(!cells.is_empty(), "No cell is called {wanted}");
    let pair = Pair::new(Lab::attach().expect("the lab runs: cargo xtask lab up"));
    pair.reset_in_clear().expect("the pair can be made ready");
    let (mut rows, until) = (Vec::new(), until());
    for cell in cells {
        if !rows.is_empty() && until.is_some_and(|until| SystemTime::now() >= until) {
            println!("SKIPPED: {cell}: the time is over");
            continue;
        }
        rows.push(run(&pair, cell));
    }
    print(&rows);
    let failed: Vec<&Row> = rows.iter().filter(|row| row.outcome.is_err()).collect();
    assert!(failed.is_empty(), "{} of {} cells failed", failed.len(), rows.len());
}

/// When no further cell is to be begun, as `cargo xtask test --within` has it.
fn until() -> Option<SystemTime> {
    let seconds = std::env::var("BASCULE_UNTIL").ok()?.parse().ok()?;
    Some(UNIX_EPOCH + Duration::from_secs(seconds))
}

/// `BASCULE_SOAK` migrations to and fro under load, about half of them with a random fault.
#[test]
#[ignore = "needs the lab, and a long time: cargo xtask test --soak N"]
fn soak() {
    let count = std::env::var("BASCULE_SOAK").ok().and_then(|count| count.parse().ok()).unwrap_or(10_u32);
    let pair = Pair::new(Lab::attach().expect("the lab runs: cargo xtask lab up"));
    pair.reset_in_clear().expect("the pair can be made ready");
    let (all, mut state) = (Cell::all(), seed());
    let (mut failed, mut plain) = (0, 0);
    for nth in 1..=count {
        let random = split_mix(&mut state);
        if random.is_multiple_of(2) {
            plain += 1;
            cell::migrate_plainly(&pair).unwrap_or_else(|error| {
                failed += 1;
                println!("{nth}: FAILED: {error:#}; logs: {:?}", pair.lab().collect_logs(&format!("soak-{nth}")));
                cell::clean_up(&pair).expect("cleaned up");
            });
        } else {
            print!("{nth}: ");
            failed += u32::from(run(&pair, pick(&all, random >> 1)).outcome.is_err());
        }
    }
    println!("{count} migrations, {} of them with a fault, {failed} failed", count - plain);
    assert_eq!(failed, 0);
}

fn run(pair: &Pair, cell: Cell) -> Row {
    let row = cell.run(pair);
    println!("{row}");
    if row.outcome.is_err() {
        let logs = pair.lab().collect_logs(&cell.to_string().replace(' ', "-"));
        println!("logs: {logs:?}");
        // The next cell begins from a clean pair, whatever this one has left.
        cell::clean_up(pair).context("The pair could not be made ready again").expect("cleaned up");
    }
    row
}

fn chosen(wanted: &str) -> Vec<Cell> {
    let all = Cell::all();
    match wanted {
        "all" => all,
        "sample" => {
            let named = |name: &&str| *all.iter().find(|cell| cell.to_string() == **name).expect("a cell of that name");
            let mut cells: Vec<Cell> = FIXED.iter().map(named).collect();
            cells.extend(random(&all));
            cells
        }
        part => all.into_iter().filter(|cell| cell.to_string().contains(part)).collect(),
    }
}

/// Every Nth cell from the Kth on, where `BASCULE_PART` is `K/N`: each part has something of all steps and blows.
fn part_of(cells: Vec<Cell>) -> Vec<Cell> {
    let Ok(part) = std::env::var("BASCULE_PART") else { return cells };
    let numbers = part.split_once('/').and_then(|(part, of)| Some((part.parse::<usize>().ok()?, of.parse().ok()?)));
    let (part, of) = numbers.expect("BASCULE_PART is K/N");
    cells.into_iter().skip(part.checked_sub(1).expect("K begins with 1")).step_by(of).collect()
}

fn random(all: &[Cell]) -> Vec<Cell> {
    let mut state = seed();
    (0..RANDOM).map(|_| pick(all, split_mix(&mut state))).collect()
}

fn pick(all: &[Cell], random: u64) -> Cell {
    all[usize::try_from(random % all.len() as u64).expect("an index")]
}

/// Printed, so that it can be replayed.
fn seed() -> u64 {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let seed = std::env::var("BASCULE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(now);
    println!("random faults of BASCULE_SEED={seed}");
    seed
}

/// SplitMix64: good enough to choose from a list, and the same everywhere.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn print(rows: &[Row]) {
    println!("\n{:<48}{:>14}{:>12}   what happened", "cell", "unavailable", "resolved in");
    rows.iter().for_each(|row| println!("{row}"));
    let failed = rows.iter().filter(|row| row.outcome.is_err()).count();
    println!("{} cells, {failed} failed\n", rows.len());
}
