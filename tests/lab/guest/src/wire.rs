//! The datagrams between the guest and the lab's witness: UDP over IPv4 broadcast, one line of text each.
//!
//! ```text
//! LAB1 report name=vm0 boot=5e1fd00d n=812 first=1 found=0 synced=811 holes=0 io=0 mem=0 rounds=3 rewritten=0 net=0 ms=40650
//! LAB1 answer name=vm0 boot=5e1fd00d id=7 text=memory 8192 pages 0 errors
//! LAB1 command to=vm0 id=7 order=dirty 4096
//! ```
//!
//! A report is sent for each number once; the number belongs to its boot, so the same pair (boot, n) seen at two places
//! means that two copies of the guest ran.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// First word of each datagram, with the version of the format.
pub const MAGIC: &str = "LAB1";
/// UDP port of the guests for commands.
pub const COMMAND_PORT: u16 = 9700;
/// UDP port that reports and answers are sent to.
pub const REPORT_PORT: u16 = 9701;
/// The longest datagram, in bytes; fits an Ethernet frame of MTU 1500.
pub const LENGTH_MAX: usize = 1400;
/// Highest rate of the counter, in numbers per second.
pub const RATE_HZ_MAX: u32 = 1000;

/// A datagram or a field of it could not be read.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum WireError {
    /// Not one of ours, or of another version.
    #[error("Not a datagram of the lab")]
    Foreign,
    /// A field that its kind needs is absent.
    #[error("Field {0} is missing")]
    Missing(&'static str),
    /// A field is there and does not say what it should.
    #[error("Field {field} cannot be {found:?}")]
    Invalid {
        /// The field's name.
        field: &'static str,
        /// What stood there.
        found: String,
    },
}

/// What a guest says, in either of its two forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Datagram {
    /// The periodic report, one for each number.
    Report(Report),
    /// The answer to a command.
    Answer(Answer),
}

/// One number of the counter, with what the guest knows about itself at that moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// The guest's name, from its kernel command line.
    pub name: String,
    /// Which boot of the guest speaks; all copies of one running memory share it.
    pub boot: BootId,
    /// The number. Grows by one from report to report.
    pub n: u64,
    /// The first number of this boot: one more than the last that was found on the disks.
    pub first: u64,
    /// For each disk, the last number of the unbroken sequence that was found on it at boot (0: none).
    pub found: Vec<u64>,
    /// For each disk, the last number that fdatasync has confirmed.
    pub synced: Vec<u64>,
    /// Numbers that should be in the logs and are not, over all disks, as of the last look (boot or `verify`).
    pub holes: u64,
    /// Failed operations on the disks.
    pub io_errors: u64,
    /// Pages whose contents were wrong.
    pub memory_errors: u64,
    /// How often the whole area has been checked.
    pub rounds: u64,
    /// Pages rewritten.
    pub rewritten: u64,
    /// Datagrams that the network refused to take.
    pub net_errors: u64,
    /// The guest's CLOCK_MONOTONIC in milliseconds.
    pub uptime_ms: u64,
}

/// The answer to the command with the same id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The guest's name.
    pub name: String,
    /// Which boot of it answers.
    pub boot: BootId,
    /// The command's id.
    pub id: u32,
    /// What came of it, for people.
    pub text: String,
}

/// An order to one guest, or to all (`to` = `*`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The guest's name or `*`.
    pub to: String,
    /// Chosen by the sender; comes back in the answer.
    pub id: u32,
    /// What to do.
    pub order: Order,
}

/// What a guest can be told to do while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Rewrite the memory area at this many KiB per second from now on.
    Dirty(u64),
    /// Count this many numbers per second from now on, 1 to [`RATE_HZ_MAX`].
    Rate(u32),
    /// Check the whole area and read the logs back from the disks, then answer.
    Verify,
    /// End the workload and power the guest off.
    Quit,
}

/// A boot of a guest, drawn at random by its kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct BootId(pub u32);

impl Datagram {
    /// Reads the payload of a UDP datagram.
    ///
    /// # Errors
    /// [`WireError::Foreign`] if it is not from a guest of the lab, else the first field that is wrong.
    pub fn parse(payload: &[u8]) -> Result<Self, WireError> {
        let text = std::str::from_utf8(payload).map_err(|_| WireError::Foreign)?;
        let (kind, fields) = Fields::of(text)?;
        match kind {
            "report" => Ok(Self::Report(Report::from_fields(&fields)?)),
            "answer" => Ok(Self::Answer(Answer::from_fields(&fields)?)),
            _ => Err(WireError::Foreign),
        }
    }
}

impl fmt::Display for Datagram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Report(report) => report.fmt(f),
            Self::Answer(answer) => answer.fmt(f),
        }
    }
}

impl Report {
    fn from_fields(fields: &Fields<'_>) -> Result<Self, WireError> {
        Ok(Self {
            name: fields.text("name")?.to_owned(),
            boot: fields.value("boot")?,
            n: fields.value("n")?,
            first: fields.value("first")?,
            found: fields.list("found")?,
            synced: fields.list("synced")?,
            holes: fields.value("holes")?,
            io_errors: fields.value("io")?,
            memory_errors: fields.value("mem")?,
            rounds: fields.value("rounds")?,
            rewritten: fields.value("rewritten")?,
            net_errors: fields.value("net")?,
            uptime_ms: fields.value("ms")?,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MAGIC} report name={} boot={} n={} first={}", self.name, self.boot, self.n, self.first)?;
        write!(f, " found={} synced={}", Numbers(&self.found), Numbers(&self.synced))?;
        write!(f, " holes={} io={} mem={}", self.holes, self.io_errors, self.memory_errors)?;
        write!(f, " rounds={} rewritten={}", self.rounds, self.rewritten)?;
        write!(f, " net={} ms={}", self.net_errors, self.uptime_ms)
    }
}

impl Answer {
    fn from_fields(fields: &Fields<'_>) -> Result<Self, WireError> {
        Ok(Self {
            name: fields.text("name")?.to_owned(),
            boot: fields.value("boot")?,
            id: fields.value("id")?,
            text: fields.text("text")?.to_owned(),
        })
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MAGIC} answer name={} boot={} id={} text={}", self.name, self.boot, self.id, self.text)
    }
}

impl Command {
    /// Reads the payload of a UDP datagram.
    ///
    /// # Errors
    /// [`WireError::Foreign`] if it is no command, else the first field that is wrong.
    pub fn parse(payload: &[u8]) -> Result<Self, WireError> {
        let text = std::str::from_utf8(payload).map_err(|_| WireError::Foreign)?;
        match Fields::of(text)? {
            ("command", fields) => {
                Ok(Self { to: fields.text("to")?.to_owned(), id: fields.value("id")?, order: fields.value("order")? })
            }
            _ => Err(WireError::Foreign),
        }
    }

    /// Whether the guest of this name is meant.
    #[must_use]
    pub fn is_for(&self, name: &str) -> bool {
        self.to == "*" || self.to == name
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MAGIC} command to={} id={} order={}", self.to, self.id, self.order)
    }
}

impl FromStr for Order {
    type Err = WireError;

    fn from_str(text: &str) -> Result<Self, WireError> {
        let invalid = || WireError::Invalid { field: "order", found: text.to_owned() };
        let words: Vec<&str> = text.split_whitespace().collect();
        match words[..] {
            ["verify"] => Ok(Self::Verify),
            ["quit"] => Ok(Self::Quit),
            ["dirty", kib_s] => kib_s.parse().map(Self::Dirty).map_err(|_| invalid()),
            ["rate", hz] => match hz.parse() {
                Ok(hz) if (1..=RATE_HZ_MAX).contains(&hz) => Ok(Self::Rate(hz)),
                _ => Err(invalid()),
            },
            _ => Err(invalid()),
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dirty(kib_s) => write!(f, "dirty {kib_s}"),
            Self::Rate(hz) => write!(f, "rate {hz}"),
            Self::Verify => f.write_str("verify"),
            Self::Quit => f.write_str("quit"),
        }
    }
}

impl FromStr for BootId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u32::from_str_radix(text, 16).map(Self)
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// The `key=value` fields of a datagram. The last field of answers and commands (`text`, `order`) runs to the end of the line.
struct Fields<'a>(HashMap<&'a str, &'a str>);

impl<'a> Fields<'a> {
    /// Splits a datagram into its kind and its fields.
    fn of(text: &'a str) -> Result<(&'a str, Self), WireError> {
        let mut parts = text.splitn(3, ' ');
        let (Some(MAGIC), Some(kind), Some(mut rest)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(WireError::Foreign);
        };
        let mut fields = HashMap::new();
        while let Some((key, after)) = rest.split_once('=') {
            let (value, next) = match key {
                "text" | "order" => (after, ""),
                _ => after.split_once(' ').unwrap_or((after, "")),
            };
            fields.insert(key, value);
            rest = next;
        }
        Ok((kind, Self(fields)))
    }

    fn text(&self, key: &'static str) -> Result<&'a str, WireError> {
        self.0.get(key).copied().ok_or(WireError::Missing(key))
    }

    fn value<T: FromStr>(&self, field: &'static str) -> Result<T, WireError> {
        let found = self.text(field)?;
        found.parse().map_err(|_| WireError::Invalid { field, found: found.to_owned() })
    }

    /// A list of numbers separated by commas; `-` is the empty list.
    fn list(&self, field: &'static str) -> Result<Vec<u64>, WireError> {
        let found = self.text(field)?;
        if found == "-" {
            return Ok(Vec::new());
        }
        let numbers: Result<_, _> = found.split(',').map(str::parse).collect();
        numbers.map_err(|_| WireError::Invalid { field, found: found.to_owned() })
    }
}

/// Prints what `Fields::list` reads.
struct Numbers<'a>(&'a [u64]);

impl fmt::Display for Numbers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("-");
        }
        for (position, number) in self.0.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            write!(f, "{comma}{number}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            name: "vm0".to_owned(),
            boot: BootId(0x5e1f_d00d),
            n: 812,
            first: 1,
            found: vec![0, 7],
            synced: vec![811, 810],
            rounds: 3,
            uptime_ms: 40_650,
            ..Report::default()
        }
    }

    #[test]
    fn report_survives_the_wire() {
        let sent = Datagram::Report(report());
        assert_eq!(Datagram::parse(sent.to_string().as_bytes()), Ok(sent));
    }

    #[test]
    fn report_without_disks_survives_the_wire() {
        let sent = Datagram::Report(Report { found: vec![], synced: vec![], ..report() });
        assert_eq!(Datagram::parse(sent.to_string().as_bytes()), Ok(sent));
    }

    #[test]
    fn answer_keeps_its_spaces_and_equal_signs() {
        let text = "memory pages=8192 errors=0".to_owned();
        let sent = Datagram::Answer(Answer { name: "vm0".to_owned(), boot: BootId(1), id: 7, text });
        assert_eq!(Datagram::parse(sent.to_string().as_bytes()), Ok(sent));
    }

    #[test]
    fn commands_survive_the_wire() {
        for order in [Order::Dirty(4096), Order::Rate(50), Order::Verify, Order::Quit] {
            let sent = Command { to: "*".to_owned(), id: 9, order };
            assert_eq!(Command::parse(sent.to_string().as_bytes()), Ok(sent));
        }
    }

    #[test]
    fn orders_out_of_range_are_refused() {
        for text in ["rate 0", "rate 1001", "dirty", "dirty -1", "sing", ""] {
            assert!(text.parse::<Order>().is_err(), "{text}");
        }
    }

    #[test]
    fn others_traffic_is_foreign() {
        for payload in [&b"\xff\xfe"[..], b"", b"LAB1", b"LAB2 report n=1", b"LAB1 song a=b", b"M-SEARCH * HTTP/1.1"] {
            assert_eq!(Datagram::parse(payload), Err(WireError::Foreign));
        }
        assert_eq!(Datagram::parse(b"LAB1 report n=1"), Err(WireError::Missing("name")));
    }

    #[test]
    fn longest_report_fits_a_frame() {
        let longest = Report {
            name: "n".repeat(64),
            boot: BootId(u32::MAX),
            n: u64::MAX,
            first: u64::MAX,
            found: vec![u64::MAX; 8],
            synced: vec![u64::MAX; 8],
            holes: u64::MAX,
            io_errors: u64::MAX,
            memory_errors: u64::MAX,
            rounds: u64::MAX,
            rewritten: u64::MAX,
            net_errors: u64::MAX,
            uptime_ms: u64::MAX,
        };
        assert!(longest.to_string().len() <= LENGTH_MAX);
    }
}
