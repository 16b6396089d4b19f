//! What happened to one guest in a window of time, told by its reports. Pure: no clock, no file.

use std::collections::HashMap;
use std::time::Duration;

use lab_guest::wire::BootId;

use super::Sighting;
use crate::lan::monotonic_now;

/// A span of the host's CLOCK_MONOTONIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Its beginning.
    pub from: Duration,
    /// Its end.
    pub to: Duration,
}

/// The reports of one guest in a window.
#[derive(Debug, Clone)]
pub struct Story {
    window: Window,
    sightings: Vec<Sighting>,
}

/// A time in which nothing was heard of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silence {
    /// The last report before it, or the window's beginning.
    pub from: Duration,
    /// The first report after it, or the window's end.
    pub to: Duration,
    /// The report before it, if there was one in the window.
    pub before: Option<Sighting>,
    /// The report after it, if there was one in the window.
    pub after: Option<Sighting>,
}

/// A time in which the guest itself stood still, as its own clock shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// How much less the guest's CLOCK_MONOTONIC has gone on than the host's.
    pub length: Duration,
    /// The last report before it and the first after it.
    pub between: Box<[Sighting; 2]>,
}

/// The largest counts of errors that the guest reported in the window. They count from its boot on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Errors {
    /// Pages of memory with wrong contents.
    pub memory: u64,
    /// Failed operations on its disks.
    pub io: u64,
    /// Numbers that its disks should hold and do not, as of its last `verify`.
    pub holes: u64,
    /// Datagrams that its network refused.
    pub net: u64,
}

/// Numbers that a disk had confirmed and that were not on it at the next boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostWrites {
    /// Index of the disk.
    pub disk: usize,
    /// The last number that was confirmed.
    pub synced: u64,
    /// The last number that was found.
    pub found: u64,
}

/// Evidence that two copies of the guest ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubled {
    /// A running memory gives each number once; this one came twice.
    SameNumber(Box<[Sighting; 2]>),
    /// A boot was heard before the one that follows it had ended: the last report of the earlier and the first of the later boot.
    OverlappingBoots(Box<[Sighting; 2]>),
}

impl Window {
    /// From `from` until now.
    #[must_use]
    pub fn since(from: Duration) -> Self {
        Self { from, to: monotonic_now() }
    }

    /// Whether `at` lies in it, both ends included.
    #[must_use]
    pub fn contains(&self, at: Duration) -> bool {
        (self.from..=self.to).contains(&at)
    }
}

impl Silence {
    /// How long it lasted.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.to.saturating_sub(self.from)
    }
}

impl Story {
    /// The story that these reports of one guest tell. They are in the order of their arrival.
    #[must_use]
    pub fn new(window: Window, sightings: Vec<Sighting>) -> Self {
        Self { window, sightings }
    }

    /// The reports themselves.
    #[must_use]
    pub fn sightings(&self) -> &[Sighting] {
        &self.sightings
    }

    /// The longest time without a report: the downtime as the LAN saw it, plus up to one period of the counter. A guest
    /// that is silent until the window's end is silent up to there.
    #[must_use]
    pub fn longest_silence(&self) -> Silence {
        self.longest_between(self.sightings.iter())
    }

    /// The longest time that the guest did not run, to some milliseconds; `None` without two reports of one boot. Its
    /// clock does not run while it is suspended, so this is the downtime without what the LAN needs to find it again, to
    /// which the datagrams sent meanwhile are lost ([`missing`](Self::missing)).
    #[must_use]
    pub fn longest_stop(&self) -> Option<Stop> {
        let mut longest: Option<Stop> = None;
        for pair in self.boots().iter().flat_map(|boot| boot.windows(2)) {
            let (before, after) = (pair[0], pair[1]);
            let ran_ms = after.report.uptime_ms.saturating_sub(before.report.uptime_ms);
            let length = after.at.saturating_sub(before.at).saturating_sub(Duration::from_millis(ran_ms));
            if longest.as_ref().is_none_or(|stop| length > stop.length) {
                longest = Some(Stop { length, between: Box::new([before.clone(), after.clone()]) });
            }
        }
        longest
    }

    /// The longest time in which the disk confirmed nothing new, as the reports tell it.
    #[must_use]
    pub fn longest_disk_stall(&self, disk: usize) -> Silence {
        let synced = |sighting: &Sighting| (sighting.report.boot, sighting.report.synced.get(disk).copied());
        let mut last = None;
        self.longest_between(
            self.sightings.iter().filter(|sighting| last.replace(synced(sighting)) != Some(synced(sighting))),
        )
    }

    fn longest_between<'a>(&self, sightings: impl Iterator<Item = &'a Sighting>) -> Silence {
        let begin = Silence { from: self.window.from, to: self.window.from, before: None, after: None };
        let (mut longest, mut before) = (begin, None::<&Sighting>);
        let mut consider = |before: Option<&Sighting>, after: Option<&Sighting>| {
            let from = before.map_or(self.window.from, |sighting| sighting.at);
            let to = after.map_or(self.window.to, |sighting| sighting.at);
            if to.saturating_sub(from) > longest.length() {
                longest = Silence { from, to, before: before.cloned(), after: after.cloned() };
            }
        };
        for after in sightings {
            consider(before, Some(after));
            before = Some(after);
        }
        consider(before, None);
        longest
    }

    /// Numbers that no report carried although earlier and later ones of the same boot came. A network may lose datagrams:
    /// whether the counter itself is complete, the disks tell ([`Errors::holes`], [`lost_writes`](Self::lost_writes)).
    #[must_use]
    pub fn missing(&self) -> Vec<u64> {
        let mut missing = Vec::new();
        for boot in self.boots() {
            let mut numbers: Vec<u64> = boot.iter().map(|sighting| sighting.report.n).collect();
            numbers.sort_unstable();
            missing.extend(numbers.windows(2).flat_map(|pair| pair[0] + 1..pair[1]));
        }
        missing
    }

    /// The errors that the guest reported.
    #[must_use]
    pub fn errors(&self) -> Errors {
        self.sightings.iter().fold(Errors::default(), |errors, Sighting { report, .. }| Errors {
            memory: errors.memory.max(report.memory_errors),
            io: errors.io.max(report.io_errors),
            holes: errors.holes.max(report.holes),
            net: errors.net.max(report.net_errors),
        })
    }

    /// Confirmed writes that were gone at the guest's next boot in the window.
    #[must_use]
    pub fn lost_writes(&self) -> Vec<LostWrites> {
        let boots = self.boots();
        let mut lost = Vec::new();
        for pair in boots.windows(2) {
            let (Some(before), Some(after)) = (pair[0].last(), pair[1].first()) else { continue };
            for (disk, (synced, found)) in before.report.synced.iter().zip(&after.report.found).enumerate() {
                if found < synced {
                    lost.push(LostWrites { disk, synced: *synced, found: *found });
                }
            }
        }
        lost
    }

    /// The first evidence that two copies ran, on one node or on both; `None` if there is none.
    #[must_use]
    pub fn doubled(&self) -> Option<Doubled> {
        self.same_number().or_else(|| self.overlapping_boots())
    }

    fn same_number(&self) -> Option<Doubled> {
        let mut first_sighting = HashMap::new();
        self.sightings.iter().find_map(|sighting| {
            let number = (sighting.report.boot, sighting.report.n);
            let first = first_sighting.insert(number, sighting)?;
            Some(Doubled::SameNumber(Box::new([first.clone(), sighting.clone()])))
        })
    }

    fn overlapping_boots(&self) -> Option<Doubled> {
        self.boots().windows(2).find_map(|pair| {
            let (last, first) = (*pair[0].last()?, *pair[1].first()?);
            (last.at >= first.at).then(|| Doubled::OverlappingBoots(Box::new([last.clone(), first.clone()])))
        })
    }

    /// The nodes that the guest was heard from, in order, each as often as it came there.
    #[must_use]
    pub fn nodes(&self) -> Vec<u8> {
        let mut nodes: Vec<u8> = self.sightings.iter().map(|sighting| sighting.node).collect();
        nodes.dedup();
        nodes
    }

    /// The reports of each boot, in the order of the boots' first reports.
    fn boots(&self) -> Vec<Vec<&Sighting>> {
        let mut order: Vec<BootId> = Vec::new();
        let mut boots: HashMap<BootId, Vec<&Sighting>> = HashMap::new();
        for sighting in &self.sightings {
            let boot = boots.entry(sighting.report.boot).or_insert_with(|| {
                order.push(sighting.report.boot);
                Vec::new()
            });
            boot.push(sighting);
        }
        order.into_iter().filter_map(|boot| boots.remove(&boot)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use lab_guest::wire::Report;

    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A report of boot 1 at `at` ms; disks confirm each number at once.
    fn seen(at: u64, node: u8, n: u64) -> Sighting {
        let report = Report { name: "vm0".to_owned(), boot: BootId(1), n, synced: vec![n], ..Report::default() };
        Sighting { at: ms(at), wall: UNIX_EPOCH, node, report }
    }

    fn of_boot(boot: u32, found: u64, mut sighting: Sighting) -> Sighting {
        sighting.report.boot = BootId(boot);
        sighting.report.found = vec![found];
        sighting
    }

    fn story(sightings: Vec<Sighting>) -> Story {
        Story::new(Window { from: ms(0), to: ms(1000) }, sightings)
    }

    /// From node 1 to node 2, silent from 150 to 650.
    fn migration() -> Vec<Sighting> {
        let before = (0..=3).map(|n| seen(n * 50, 1, n + 1));
        let after = (0..=7).map(|n| seen(650 + n * 50, 2, n + 5));
        before.chain(after).collect()
    }

    #[test]
    fn a_migration_is_one_silence_and_nothing_else() {
        let story = story(migration());
        let silence = story.longest_silence();
        assert_eq!((silence.from, silence.to, silence.length()), (ms(150), ms(650), ms(500)));
        assert_eq!((silence.before.unwrap().node, silence.after.unwrap().node), (1, 2));
        assert_eq!(story.nodes(), [1, 2]);
        assert!(story.missing().is_empty());
        assert_eq!(story.doubled(), None);
        assert_eq!(story.errors(), Errors::default());
    }

    #[test]
    fn the_guests_clock_tells_its_stop_from_the_networks_silence() {
        let mut sightings = migration();
        for sighting in &mut sightings {
            sighting.report.uptime_ms = 5000 + sighting.report.n * 50;
        }
        // It ran on for four numbers before the LAN found it: numbers 5 to 8 were not heard.
        sightings.drain(4..8);
        let story = story(sightings);
        assert_eq!(story.longest_silence().length(), ms(700));
        let stop = story.longest_stop().unwrap();
        assert_eq!(stop.length, ms(450));
        assert_eq!(stop.between.map(|sighting| sighting.report.n), [4, 9]);
        assert_eq!(story.missing(), [5, 6, 7, 8]);
    }

    #[test]
    fn a_guest_that_is_never_heard_again_is_silent_to_the_end() {
        let story = story(migration().into_iter().take(4).collect());
        assert_eq!(story.longest_silence().length(), ms(850));
        assert_eq!(Story::new(Window { from: ms(0), to: ms(70) }, vec![]).longest_silence().length(), ms(70));
    }

    #[test]
    fn a_disk_that_stands_still_is_seen_while_the_guest_talks() {
        let mut sightings: Vec<_> = (0..=20).map(|n| seen(n * 50, 1, n + 1)).collect();
        for sighting in &mut sightings[4..14] {
            sighting.report.synced = vec![4];
        }
        let story = story(sightings);
        assert_eq!(story.longest_silence().length(), ms(50));
        let stall = story.longest_disk_stall(0);
        assert_eq!((stall.from, stall.to), (ms(150), ms(700)));
    }

    #[test]
    fn numbers_that_nobody_heard_are_missing() {
        let mut sightings = migration();
        sightings.remove(4);
        sightings.remove(4);
        assert_eq!(story(sightings).missing(), [5, 6]);
    }

    #[test]
    fn frames_that_overtook_each_other_are_neither_missing_nor_double() {
        let mut sightings = migration();
        sightings.swap(3, 4);
        let story = story(sightings);
        assert!(story.missing().is_empty());
        assert_eq!(story.doubled(), None);
    }

    #[test]
    fn a_number_from_both_nodes_is_a_second_copy() {
        let mut sightings = migration();
        sightings.push(seen(999, 1, 5));
        match story(sightings).doubled() {
            Some(Doubled::SameNumber(pair)) => assert_eq!(pair.map(|sighting| sighting.node), [2, 1]),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_second_boot_beside_the_first_is_a_second_copy() {
        let mut sightings = migration();
        sightings.insert(6, of_boot(2, 4, seen(710, 1, 5)));
        assert!(matches!(story(sightings).doubled(), Some(Doubled::OverlappingBoots(_))));
    }

    #[test]
    fn a_boot_after_the_other_is_none_and_shows_what_was_lost() {
        let mut sightings = migration();
        sightings.truncate(6);
        sightings.push(of_boot(2, 6, seen(900, 2, 7)));
        let kept = story(sightings.clone());
        assert_eq!(kept.doubled(), None);
        assert!(kept.lost_writes().is_empty());
        sightings.pop();
        sightings.push(of_boot(2, 5, seen(900, 2, 6)));
        assert_eq!(story(sightings).lost_writes(), [LostWrites { disk: 0, synced: 6, found: 5 }]);
    }

    #[test]
    fn errors_are_the_largest_counts() {
        let mut sightings = migration();
        sightings[2].report.io_errors = 3;
        sightings[5].report.memory_errors = 1;
        assert_eq!(story(sightings).errors(), Errors { memory: 1, io: 3, ..Errors::default() });
    }
}
