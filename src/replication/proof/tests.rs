//! The verdict as a table: what each side has, and what follows for the one that asks.

use super::*;
use crate::ids::Minor;

type Change = fn(&mut Proof);

fn volume(number: u16) -> VolumeProof {
    VolumeProof {
        volume: VolumeId { resource: "r0".to_owned(), volume: number },
        unwritten: true,
        out_of_sync_sectors: 0,
        primary: false,
        up_to_date: true,
    }
}

fn clean(side: Side) -> Proof {
    Proof { side, ran: false, volumes: vec![volume(0), volume(1)] }
}

fn with(side: Side, change: impl FnOnce(&mut Proof)) -> Proof {
    let mut proof = clean(side);
    change(&mut proof);
    proof
}

fn nobody(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Nobody { mine, theirs } if !mine.is_empty() && !theirs.is_empty())
}

#[test]
fn who_wrote_keeps_and_who_did_not_yields() {
    let ran = |proof: &mut Proof| proof.ran = true;
    let written = |proof: &mut Proof| proof.volumes[1].unwritten = false;
    let differs = |proof: &mut Proof| proof.volumes[0].out_of_sync_sectors = 8;
    let changes: [Change; 3] = [ran, written, differs];
    for side in [Side::Outgoing, Side::Incoming] {
        let other = if side == Side::Outgoing { Side::Incoming } else { Side::Outgoing };
        for change in changes {
            let (mine, theirs) = (with(side, change), clean(other));
            assert_eq!(who_may_sacrifice(&mine, &theirs), Verdict::Theirs, "{mine:?}");
            assert_eq!(who_may_sacrifice(&theirs, &mine), Verdict::Mine, "{mine:?}");
            // Both wrote, each in its way: nobody yields.
            for other_change in changes {
                let theirs = with(other, other_change);
                assert!(nobody(&who_may_sacrifice(&mine, &theirs)), "{mine:?} {theirs:?}");
                assert!(nobody(&who_may_sacrifice(&theirs, &mine)), "{mine:?} {theirs:?}");
            }
        }
    }
}

#[test]
fn where_nobody_wrote_the_primary_keeps_and_else_the_source() {
    let primary = |proof: &mut Proof| proof.volumes[0].primary = true;
    let nothing = |_: &mut Proof| {};
    let table: [(Change, Change, Verdict); 4] = [
        (nothing, nothing, Verdict::Theirs),
        (primary, nothing, Verdict::Theirs),
        (nothing, primary, Verdict::Mine),
        (primary, primary, Verdict::Theirs),
    ];
    for (at_source, at_destination, verdict_of_source) in table {
        let (source, destination) = (with(Side::Outgoing, at_source), with(Side::Incoming, at_destination));
        assert_eq!(who_may_sacrifice(&source, &destination), verdict_of_source);
        let fits = if verdict_of_source == Verdict::Mine { Verdict::Theirs } else { Verdict::Mine };
        assert_eq!(who_may_sacrifice(&destination, &source), fits);
    }
}

#[test]
fn nobody_yields_to_data_that_is_not_current() {
    let stale = with(Side::Outgoing, |proof| proof.volumes[0].up_to_date = false);
    let good = clean(Side::Incoming);
    assert_eq!(who_may_sacrifice(&good, &stale), Verdict::Theirs);
    assert_eq!(who_may_sacrifice(&stale, &good), Verdict::Mine);
    let stale_and_written = with(Side::Outgoing, |proof| {
        proof.volumes[0].up_to_date = false;
        proof.ran = true;
    });
    assert!(nobody(&who_may_sacrifice(&good, &stale_and_written)));
}

#[test]
fn proofs_that_do_not_fit_together_prove_nothing() {
    let source = clean(Side::Outgoing);
    let fewer = with(Side::Incoming, |proof| proof.volumes.truncate(1));
    let none = with(Side::Incoming, |proof| proof.volumes.clear());
    let twice = with(Side::Incoming, |proof| proof.volumes.push(volume(1)));
    let same_side = clean(Side::Outgoing);
    for theirs in [fewer, none, twice, same_side] {
        assert!(nobody(&who_may_sacrifice(&source, &theirs)), "{theirs:?}");
        assert!(nobody(&who_may_sacrifice(&theirs, &source)), "{theirs:?}");
    }
    let reordered = with(Side::Incoming, |proof| proof.volumes.reverse());
    assert_eq!(who_may_sacrifice(&source, &reordered), Verdict::Theirs);
}

#[test]
fn a_proof_travels_as_json() {
    let proof = with(Side::Incoming, |proof| proof.volumes[1].out_of_sync_sectors = 16);
    let json = serde_json::to_string(&proof).unwrap();
    assert_eq!(serde_json::from_str::<Proof>(&json).unwrap(), proof);
}

fn state(counters: Counters) -> VolumeState {
    VolumeState {
        id: volume(0).volume,
        minor: Minor(0),
        size_sectors: 2048,
        generation: 42,
        primary: false,
        peer_primary: false,
        connected: true,
        connection: "Connected".to_owned(),
        disk: "UpToDate".to_owned(),
        peer_disk: "UpToDate".to_owned(),
        up_to_date: true,
        replication: "Established".to_owned(),
        resync_done: None,
        resyncing: false,
        protocol: Some('C'),
        two_primaries: false,
        standalone: false,
        out_of_sync_sectors: 0,
        peer: "the other".to_owned(),
        counters,
    }
}

#[test]
fn counters_tell_who_wrote_as_far_as_they_can() {
    let sample = Counters { written: 100, sent: 50, received: 20 };
    let of = |written, sent, received| state(Counters { written, sent, received });
    let away = |mut state: VolumeState| {
        (state.connected, state.up_to_date) = (false, false);
        state
    };
    let differs = |mut state: VolumeState| {
        state.out_of_sync_sectors = 8;
        state
    };
    let table = [
        (of(100, 50, 20), Wrote::No, Wrote::No),
        (away(of(100, 50, 20)), Wrote::No, Wrote::Unknown),
        (of(108, 58, 20), Wrote::Yes, Wrote::Unknown),
        (differs(away(of(108, 50, 20))), Wrote::Yes, Wrote::Unknown),
        (of(108, 50, 28), Wrote::Unknown, Wrote::Yes),
        // Connected anew: only what the disk counts is comparable.
        (of(100, 0, 0), Wrote::No, Wrote::No),
        // Attached anew: nothing is.
        (of(4, 0, 0), Wrote::Unknown, Wrote::Unknown),
    ];
    for (now, here, there) in table {
        assert_eq!((wrote_here(&sample, &now), wrote_there(&sample, &now)), (here, there), "{now:?}");
        assert_eq!(VolumeProof::since(&sample, &now).unwritten, now.counters.written == 100);
    }
}
