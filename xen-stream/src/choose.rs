//! How hard to compress: `--compress auto|never|zstd|lz4`, from what each record has cost and how fast the link took it.
//!
//! The methods are a ladder, cheap to dear, and [`Chooser`] stands on one rung. Where the link is what is waited for, the rung above may
//! send less in the same time; where the processor is, the one below may. One step is taken at a time, to a rung that is
//! known to be worse only when that is long ago. What is compared is time as it passed, both the coder's and the connection's, so that a slow
//! destination counts as well. Pure: no clock, no thread.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::Method;

/// What the user wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// What is fastest, off included.
    #[default]
    Auto,
    /// No compression; zeros and unchanged pages are elided.
    Never,
    /// Zstandard, at the level that is fastest.
    Zstd,
    /// LZ4.
    Lz4,
}

/// A word that is no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} is not one of auto, never, zstd and lz4")]
pub struct NotAPolicy {
    word: String,
}

/// All words for it.
const WORDS: [(&str, Policy); 4] =
    [("auto", Policy::Auto), ("never", Policy::Never), ("zstd", Policy::Zstd), ("lz4", Policy::Lz4)];

impl FromStr for Policy {
    type Err = NotAPolicy;

    fn from_str(word: &str) -> Result<Self, NotAPolicy> {
        let found = WORDS.into_iter().find(|(known, _)| *known == word);
        found.map(|(_, policy)| policy).ok_or_else(|| NotAPolicy { word: word.to_owned() })
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        WORDS.into_iter().filter(|(_, policy)| policy == self).try_for_each(|(word, _)| f.write_str(word))
    }
}

/// A method, and what it costs beside the others: nanoseconds for each byte that it is given (`cargo xtask bench stream`, synthetic text).
/// Only the ratios between them count, and only until the method itself was measured.
#[derive(Clone, Copy, Debug)]
struct Rung {
    method: Method,
    cost: f64,
}

const LADDER: [Rung; 5] = [
    Rung { method: Method::Stored, cost: 0.8 },
    Rung { method: Method::Lz4, cost: 4.3 },
    Rung { method: Method::Zstd { level: 1 }, cost: 6.2 },
    Rung { method: Method::Zstd { level: 3 }, cost: 11.0 },
    Rung { method: Method::Zstd { level: 6 }, cost: 28.0 },
];
/// Where `auto` begins: it costs little where it is wrong.
const AUTO_START: usize = 1;

impl Policy {
    fn ladder(self) -> &'static [Rung] {
        match self {
            Self::Auto => &LADDER,
            Self::Never => &LADDER[..1],
            Self::Lz4 => &LADDER[1..2],
            Self::Zstd => &LADDER[2..],
        }
    }
}

/// What one record, or some, cost and became: the differences of two [`Tally`](crate::Tally)s, and the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Bytes that were given to the method (`packable_bytes`).
    pub packable_bytes: u64,
    /// Bytes that it made of them (`packed_bytes`).
    pub packed_bytes: u64,
    /// How long the encoder took.
    pub coding: Duration,
    /// How long the connection took.
    pub writing: Duration,
}

/// Samples of fewer bytes say nothing of the method.
const SAMPLE_BYTES_MIN: u64 = 64 << 10;
/// Samples on a rung before it is left, since the connection's buffer hides what the first of them cost.
const STAY_SAMPLES: u32 = 4;
/// Samples after which what was measured of another rung is no longer believed: 256 MiB of full records.
const BELIEVED_SAMPLES: u32 = 64;
/// The part of the time from which on the connection is what is waited for.
const WAITS_PART: f64 = 0.2;
/// What a dearer method must save of the time.
const WORTH_PART: f64 = 0.05;
/// What a dearer method must save of the bytes.
const SAVED_PART: f64 = 0.03;
/// The weight of a new sample beside those before it.
const NEW_PART: f64 = 0.4;

/// What is known of a rung, of each byte that it was given.
#[derive(Clone, Copy, Debug)]
struct Measured {
    /// Nanoseconds of coding.
    coding: f64,
    /// Nanoseconds of coding and writing.
    whole: f64,
    /// Bytes that became of it.
    ratio: f64,
    /// Samples since.
    age: u32,
}

impl Measured {
    fn of(sample: &Sample) -> Self {
        let bytes = as_f64(sample.packable_bytes.max(1));
        let coding = sample.coding.as_secs_f64() * 1e9;
        let whole = coding + sample.writing.as_secs_f64() * 1e9;
        Self { coding: coding / bytes, whole: whole / bytes, ratio: as_f64(sample.packed_bytes) / bytes, age: 0 }
    }

    fn mixed(self, new: Self) -> Self {
        let mix = |old: f64, new: f64| old + NEW_PART * (new - old);
        Self {
            coding: mix(self.coding, new.coding),
            whole: mix(self.whole, new.whole),
            ratio: mix(self.ratio, new.ratio),
            age: 0,
        }
    }

    fn is_believed(&self) -> bool {
        self.age <= BELIEVED_SAMPLES
    }

    /// Whether the connection is what is waited for.
    fn waits(&self) -> bool {
        self.whole - self.coding > WAITS_PART * self.whole
    }
}

/// Chooses, and chooses again.
#[derive(Clone, Debug)]
pub struct Chooser {
    ladder: &'static [Rung],
    at: usize,
    stayed: u32,
    measured: [Option<Measured>; LADDER.len()],
}

impl Chooser {
    /// A chooser that knows nothing yet.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        let at = if policy == Policy::Auto { AUTO_START } else { 0 };
        Self { ladder: policy.ladder(), at, stayed: 0, measured: [None; LADDER.len()] }
    }

    /// The method for what comes next.
    #[must_use]
    pub fn method(&self) -> Method {
        self.ladder[self.at].method
    }

    /// Takes what the last records cost with [`Self::method`], and says the method for the next.
    pub fn note(&mut self, sample: &Sample) -> Method {
        if sample.packable_bytes >= SAMPLE_BYTES_MIN {
            self.learn(Measured::of(sample));
            self.step();
        }
        self.method()
    }

    fn learn(&mut self, new: Measured) {
        self.measured.iter_mut().flatten().for_each(|measured| measured.age = measured.age.saturating_add(1));
        let known = self.believed(self.at).filter(|_| self.stayed > 0);
        self.measured[self.at] = Some(known.map_or(new, |known| known.mixed(new)));
        self.stayed += 1;
    }

    fn step(&mut self) {
        let Some(here) = self.measured[self.at].filter(|_| self.stayed >= STAY_SAMPLES) else { return };
        let next = if here.waits() { self.for_the_link(here) } else { self.for_the_processor(here) };
        if next != self.at {
            (self.at, self.stayed) = (next, 0);
        }
    }

    /// The link is waited for: up if that sends less, down if this rung saves nothing.
    fn for_the_link(&self, here: Measured) -> usize {
        let (up, down) = (self.at + 1, self.at.saturating_sub(1));
        if down < self.at && self.saves_nothing(here, down) {
            return down;
        }
        let better = match self.believed(up) {
            Some(above) => above.whole < here.whole * (1.0 - WORTH_PART),
            None => self.guessed(here, up).is_some_and(|coding| coding < here.whole),
        };
        if better { up } else { self.at }
    }

    /// The processor is waited for: down, unless that is known to be slower.
    fn for_the_processor(&self, here: Measured) -> usize {
        let down = self.at.saturating_sub(1);
        let slower = self.believed(down).is_some_and(|below| below.whole * (1.0 - WORTH_PART) > here.whole);
        if slower { self.at } else { down }
    }

    fn saves_nothing(&self, here: Measured, down: usize) -> bool {
        let below = match self.ladder[down].method {
            Method::Stored => Some(1.0),
            _ => self.believed(down).map(|below| below.ratio),
        };
        below.is_some_and(|below| here.ratio > below * (1.0 - SAVED_PART))
    }

    /// What coding on another rung would cost, if it stands to this one as it commonly does.
    fn guessed(&self, here: Measured, at: usize) -> Option<f64> {
        Some(here.coding * self.ladder.get(at)?.cost / self.ladder[self.at].cost)
    }

    fn believed(&self, at: usize) -> Option<Measured> {
        self.measured.get(at).copied().flatten().filter(Measured::is_believed)
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of bytes, compared within a few per cent")]
fn as_f64(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory, a processor and a link, as they might be.
    struct World {
        /// Nanoseconds a byte, and the per cent that become of it, on each rung of [`LADDER`].
        rungs: [(f64, u32); LADDER.len()],
        /// Nanoseconds a byte on the link.
        link: f64,
    }

    const TEXT: [(f64, u32); LADDER.len()] = [(0.5, 100), (2.0, 45), (3.5, 34), (5.5, 31), (16.0, 29)];
    const NOISE: [(f64, u32); LADDER.len()] = [(0.5, 100), (0.8, 100), (1.2, 100), (1.5, 100), (4.0, 100)];
    /// A processor that is ten times slower.
    const EMULATED: [(f64, u32); LADDER.len()] = [(5.0, 100), (20.0, 45), (35.0, 34), (55.0, 31), (160.0, 29)];

    const MB_S: f64 = 1e3;

    impl World {
        /// What a record of 4 MiB costs: the link goes on while the coder works.
        fn record(&self, method: Method) -> Sample {
            let rung = LADDER.iter().position(|rung| rung.method == method).expect("a rung");
            let (coding, per_cent) = self.rungs[rung];
            let ratio = f64::from(per_cent) / 100.0;
            let bytes = 4_f64 * 1024.0 * 1024.0;
            let nanos = |each: f64| Duration::from_secs_f64(bytes * each / 1e9);
            let writing = (self.link * ratio - coding).max(0.05 * ratio);
            Sample {
                packable_bytes: 4 << 20,
                packed_bytes: (4 << 20) * u64::from(per_cent) / 100,
                coding: nanos(coding),
                writing: nanos(writing),
            }
        }

        /// The time of this many records, in nanoseconds for each byte of one, and how often each method was used in the last half.
        fn run(&self, policy: Policy, records: usize) -> (f64, Vec<(Method, usize)>) {
            let mut chooser = Chooser::new(policy);
            let (mut whole, mut used) = (0.0, LADDER.map(|rung| (rung.method, 0)).to_vec());
            for record in 0..records {
                let sample = self.record(chooser.method());
                whole += Measured::of(&sample).whole;
                if record >= records / 2 {
                    used.iter_mut().filter(|(method, _)| *method == chooser.method()).for_each(|(_, n)| *n += 1);
                }
                chooser.note(&sample);
            }
            (whole, used)
        }

        fn settles_on(&self, policy: Policy) -> Method {
            let (_, used) = self.run(policy, 200);
            used.into_iter().max_by_key(|(_, n)| *n).expect("a method").0
        }
    }

    const STORED: Method = Method::Stored;
    const fn zstd(level: i32) -> Method {
        Method::Zstd { level }
    }

    #[test]
    fn auto_settles_on_what_is_fastest() {
        for (what, rungs, link_mb_s, expected) in [
            ("a fast link", TEXT, 3000.0, STORED),
            ("10 Gbit/s", TEXT, 1200.0, STORED),
            ("4 Gbit/s", TEXT, 300.0, Method::Lz4),
            ("1 Gbit/s", TEXT, 110.0, zstd(1)),
            ("400 Mbit/s", TEXT, 45.0, zstd(3)),
            ("100 Mbit/s", TEXT, 12.0, zstd(6)),
            ("20 Mbit/s", TEXT, 2.4, zstd(6)),
            ("noise on a slow link", NOISE, 12.0, STORED),
            ("noise on a fast link", NOISE, 1200.0, STORED),
            ("an emulated processor on its own link", EMULATED, 50.0, STORED),
            ("an emulated processor on a link half as fast", EMULATED, 25.0, Method::Lz4),
            ("an emulated processor on a slow link", EMULATED, 2.4, zstd(3)),
        ] {
            let world = World { rungs, link: MB_S / link_mb_s };
            let found = world.settles_on(Policy::Auto);
            let whole = |method| Measured::of(&world.record(method)).whole;
            let fastest = LADDER.iter().map(|rung| whole(rung.method)).fold(f64::INFINITY, f64::min);
            assert!(whole(found) <= fastest * 1.1, "{what}: {found} takes {}, not {fastest}", whole(found));
            assert_eq!(found, expected, "{what}");
        }
    }

    #[test]
    fn all_of_it_is_nearly_as_fast_as_with_everything_off() {
        for (rungs, link_mb_s) in [(TEXT, 5000.0), (NOISE, 5000.0), (NOISE, 50.0), (EMULATED, 5000.0)] {
            let world = World { rungs, link: MB_S / link_mb_s };
            let (auto, off) = (world.run(Policy::Auto, 256).0, world.run(Policy::Never, 256).0);
            assert!(auto < off * 1.2, "{link_mb_s} MB/s: {auto} to {off}");
        }
    }

    #[test]
    fn a_link_that_becomes_slow_is_noticed_and_one_that_becomes_fast() {
        let mut chooser = Chooser::new(Policy::Auto);
        for (link_mb_s, expected) in [(3000.0, STORED), (12.0, zstd(6)), (3000.0, STORED)] {
            let world = World { rungs: TEXT, link: MB_S / link_mb_s };
            for _ in 0..100 {
                chooser.note(&world.record(chooser.method()));
            }
            assert_eq!(chooser.method(), expected, "{link_mb_s} MB/s");
        }
    }

    #[test]
    fn what_the_user_wants_is_not_left() {
        for link_mb_s in [3000.0, 110.0, 2.4] {
            let world = World { rungs: TEXT, link: MB_S / link_mb_s };
            assert_eq!(world.settles_on(Policy::Never), STORED);
            assert_eq!(world.settles_on(Policy::Lz4), Method::Lz4);
            assert!(matches!(world.settles_on(Policy::Zstd), Method::Zstd { .. }));
        }
        let fast = World { rungs: TEXT, link: MB_S / 3000.0 };
        assert_eq!(fast.settles_on(Policy::Zstd), zstd(1));
    }

    #[test]
    fn records_of_hardly_anything_say_nothing() {
        let mut chooser = Chooser::new(Policy::Auto);
        let empty =
            Sample { packable_bytes: 9000, packed_bytes: 90, coding: Duration::from_secs(1), writing: Duration::ZERO };
        for _ in 0..100 {
            assert_eq!(chooser.note(&empty), Method::Lz4);
        }
    }

    #[test]
    fn words_are_read_and_written() {
        for (word, policy) in WORDS {
            assert_eq!((word.parse(), policy.to_string()), (Ok(policy), word.to_owned()));
        }
        assert_eq!(
            "gzip".parse::<Policy>().unwrap_err().to_string(),
            "\"gzip\" is not one of auto, never, zstd and lz4"
        );
    }
}
