//! Who may connect: addresses, networks, names and regular expressions, as xend's hosts-allow had them. An empty list allows nobody,
//! where xend's allowed everybody.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use regex::{Regex, RegexBuilder};

/// The most memory that a compiled expression may take, in bytes.
const PATTERN_SIZE_MAX: usize = 1 << 20;
// The longest name, and the longest label of one, in bytes (RFC 1035, 2.3.4).
const NAME_LEN_MAX: usize = 253;
const LABEL_LEN_MAX: usize = 63;

/// The list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Allow(pub Vec<Entry>);

/// One entry of it.
#[derive(Clone, Debug)]
pub enum Entry {
    /// An address, or all of a network.
    Net(IpNet),
    /// A full name, in lower case: of an address that resolves to it, and to which it resolves.
    Name(String),
    /// An expression that the whole of an address, or of such a name, matches; and its text without slashes.
    Pattern(Regex, String),
}

impl Allow {
    /// Every address.
    #[must_use]
    pub fn everywhere() -> Allow {
        Allow(["0.0.0.0/0", "::/0"].iter().filter_map(|net| net.parse().ok()).collect())
    }

    /// What an address says by itself; `None` when its name decides.
    #[must_use]
    pub fn by_address(&self, peer: IpAddr) -> Option<bool> {
        let (peer, text) = (peer.to_canonical(), peer.to_canonical().to_string());
        let matches = |entry: &Entry| match entry {
            Entry::Net(net) => net.contains(&peer),
            Entry::Name(_) => false,
            Entry::Pattern(pattern, _) => pattern.is_match(&text),
        };
        match self.0.iter().any(matches) {
            true => Some(true),
            false if self.0.iter().any(|entry| !matches!(entry, Entry::Net(_))) => None,
            false => Some(false),
        }
    }

    /// What the name of an address says, which has been found in both directions.
    #[must_use]
    pub fn by_name(&self, name: &str) -> bool {
        let name = canonical(name);
        self.0.iter().any(|entry| match entry {
            Entry::Net(_) => false,
            Entry::Name(allowed) => *allowed == name,
            Entry::Pattern(pattern, _) => pattern.is_match(&name),
        })
    }
}

/// Addresses and networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nets(pub Vec<IpNet>);

impl Nets {
    /// Whether it is one of them, or in one.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|net| net.contains(&address.to_canonical()))
    }

    /// Reads an entry.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn entry(text: &str) -> Result<IpNet, String> {
        match text.parse() {
            Ok(Entry::Net(net)) => Ok(net),
            Ok(_) => {
                Err(format!("{text:?} is neither an address nor a network: a name can be made to mean another host"))
            }
            Err(why) => Err(why),
        }
    }

    /// Each as it is written.
    #[must_use]
    pub fn texts(&self) -> Vec<String> {
        self.0.iter().map(|net| Entry::Net(*net).to_string()).collect()
    }
}

impl FromStr for Entry {
    type Err = String;

    fn from_str(text: &str) -> Result<Entry, String> {
        if let Some(pattern) = text.strip_prefix('/') {
            let inner = pattern.strip_suffix('/').ok_or_else(|| format!("{text:?} does not end with a slash"))?;
            return pattern_of(inner);
        }
        let net = text.parse::<IpAddr>().map(IpNet::from).or_else(|_| text.parse());
        let name = || is_full_name(text).then(|| Entry::Name(canonical(text)));
        net.map(Entry::Net).ok().or_else(name).ok_or_else(|| {
            let text: String = text.chars().take(80).collect();
            format!("{text:?} is no address, no network such as 10.99.0.0/24, no full name such as node2.example.org and no /regular expression/")
        })
    }
}

/// It is compiled alone first: what is no expression by itself must not become one by what is put around it.
fn pattern_of(inner: &str) -> Result<Entry, String> {
    let build = |text: &str| RegexBuilder::new(text).size_limit(PATTERN_SIZE_MAX).build();
    let built = build(inner).and_then(|_| build(&format!(r"\A(?:{inner})\z")));
    let why = |error: regex::Error| error.to_string().lines().last().unwrap_or_default().trim().to_owned();
    match inner {
        "" => Err("// is an empty expression".into()),
        _ => built.map(|regex| Entry::Pattern(regex, inner.to_owned())).map_err(|error| {
            let text: String = inner.chars().take(80).collect();
            format!("/{text}/ is no regular expression: {}", why(error))
        }),
    }
}

/// Whether it is a host's name with a domain's; the last label is not a number, or it would be an address with a slip in it.
pub(crate) fn is_full_name(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let labels: Vec<&str> = text.split('.').collect();
    let is_label = |label: &&str| {
        let bytes = label.as_bytes();
        let inner = bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        (1..=LABEL_LEN_MAX).contains(&bytes.len()) && inner && bytes[0] != b'-' && bytes[bytes.len() - 1] != b'-'
    };
    let numeric = labels.last().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    text.len() <= NAME_LEN_MAX && labels.len() >= 2 && labels.iter().all(is_label) && !numeric
}

fn canonical(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Entry::Net(net) if net.prefix_len() == net.max_prefix_len() => net.addr().fmt(f),
            Entry::Net(net) => net.fmt(f),
            Entry::Name(name) => f.write_str(name),
            Entry::Pattern(_, text) => write!(f, "/{text}/"),
        }
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.to_string() == other.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn allow(entries: &[&str]) -> Allow {
        Allow(entries.iter().map(|entry| entry.parse().expect("an entry")).collect())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn addresses_and_networks_decide_by_themselves() {
        let allow = allow(&["10.99.0.0/24", "::1"]);
        let rows =
            [("10.99.0.2", true), ("::ffff:10.99.0.2", true), ("::1", true), ("10.98.0.2", false), ("::2", false)];
        for (peer, allowed) in rows {
            assert_eq!(allow.by_address(ip(peer)), Some(allowed), "{peer}");
        }
        assert!(!allow.by_name("node2.example.org"));
    }

    #[test]
    fn an_empty_list_allows_nobody() {
        assert_eq!(Allow::default().by_address(ip("127.0.0.1")), Some(false));
        assert!(!Allow::default().by_name("localhost.localdomain"));
    }

    #[test]
    fn everywhere_is_every_address() {
        for peer in ["127.0.0.1", "203.0.113.9", "2001:db8::1", "::ffff:10.0.0.1"] {
            assert_eq!(Allow::everywhere().by_address(ip(peer)), Some(true), "{peer}");
        }
    }

    #[test]
    fn only_addresses_may_go_in_clear() {
        let nets = Nets(vec![Nets::entry("10.99.0.0/24").expect("a network")]);
        assert!(nets.contains(ip("::ffff:10.99.0.2")) && !nets.contains(ip("10.98.0.2")));
        assert!(Nets::entry("node2.example.org").is_err() && Nets::entry("/10.*/").is_err());
    }

    #[test]
    fn names_are_compared_whole_and_without_case() {
        let allow = allow(&["Node2.Example.org."]);
        assert_eq!(allow.by_address(ip("10.99.0.2")), None);
        assert!(allow.by_name("node2.example.ORG") && allow.by_name("node2.example.org."));
        assert!(!allow.by_name("node2.example.org.evil.net") && !allow.by_name("xnode2.example.org"));
    }

    #[test]
    fn expressions_match_the_whole_or_nothing() {
        let rows = [
            (r"/10\.99\.0\.[12]/", "10.99.0.2", Some(true)),
            (r"/10\.99\.0\.[12]/", "10.99.0.22", None),
            (r"/0\.99\.0\.2|x/", "10.99.0.2", None),
            (r"/(?m)^10\.99\.0\.2$/", "10.99.0.2", Some(true)),
        ];
        for (entry, peer, allowed) in rows {
            assert_eq!(allow(&[entry]).by_address(ip(peer)), allowed, "{entry} {peer}");
        }
        let named = allow(&[r"/node[0-9]\.example\.org/"]);
        assert!(named.by_name("NODE2.example.org"));
        assert!(!named.by_name("node2.example.org.evil.net") && !named.by_name("evil-node2.example.org"));
    }

    #[test]
    fn what_is_no_entry_is_refused() {
        let refused = [
            "",
            "*",
            "node2",
            "localhost",
            "10.99.0",
            "10.99.0.256",
            "10.99.0.0/33",
            "a..b",
            "-a.b",
            "a b.c",
            "//",
            "/",
            "/(/",
            "/a)|(b/",
            "/a",
            r"/(?:a{1000}){1000}/",
            "x y",
        ];
        for entry in refused {
            assert!(entry.parse::<Entry>().is_err(), "{entry:?}");
        }
    }

    proptest! {
        #[test]
        fn an_entry_is_read_as_it_is_written(text in "\\PC*") {
            if let Ok(entry) = text.parse::<Entry>() {
                prop_assert_eq!(entry.to_string().parse::<Entry>(), Ok(entry));
            }
        }
    }
}
