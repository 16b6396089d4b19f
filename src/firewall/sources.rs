//! Sets of addresses of one family, with which a whole family's sources walk through the rules at once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};
use serde::Serialize;

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Ip {
    /// IPv4.
    #[serde(rename = "ipv4")]
    V4,
    /// IPv6.
    #[serde(rename = "ipv6")]
    V6,
}

impl std::fmt::Display for Ip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Ip::V4 => "IPv4",
            Ip::V6 => "IPv6",
        })
    }
}

impl Ip {
    /// The family of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Ip {
        match address {
            IpAddr::V4(_) => Ip::V4,
            IpAddr::V6(_) => Ip::V6,
        }
    }

    /// Bytes of an address.
    pub(super) fn len(self) -> usize {
        match self {
            Ip::V4 => 4,
            Ip::V6 => 16,
        }
    }

    /// The last address, as a number.
    pub(super) fn max(self) -> u128 {
        match self {
            Ip::V4 => u32::MAX.into(),
            Ip::V6 => u128::MAX,
        }
    }
}

/// An address as a number.
pub(super) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// A set of addresses: ranges with both ends in them, in order, with a gap between any two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sources(Vec<(u128, u128)>);

impl Sources {
    /// Every address of a family.
    pub(super) fn all(ip: Ip) -> Sources {
        Sources(vec![(0, ip.max())])
    }

    /// From one address to another; nothing if they stand the wrong way round.
    pub(super) fn range(first: u128, last: u128) -> Sources {
        [(first, last)].into_iter().collect()
    }

    /// Those of these networks that are of the family.
    pub(super) fn nets(ip: Ip, nets: &[IpNet]) -> Sources {
        let mine = nets.iter().filter(|net| Ip::of(net.addr()) == ip);
        mine.map(|net| (number(net.network()), number(net.broadcast()))).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn ranges(&self) -> &[(u128, u128)] {
        &self.0
    }

    pub(super) fn meets(&self, other: &Sources) -> bool {
        !self.and(other).is_empty()
    }

    /// What is in both.
    pub(super) fn and(&self, other: &Sources) -> Sources {
        let (mut a, mut b) = (self.0.iter().copied().peekable(), other.0.iter().copied().peekable());
        let mut both = Vec::new();
        while let (Some(one), Some(two)) = (a.peek(), b.peek()) {
            let (first, last) = (one.0.max(two.0), one.1.min(two.1));
            if first <= last {
                both.push((first, last));
            }
            let ends_first = if one.1 < two.1 { &mut a } else { &mut b };
            ends_first.next();
        }
        Sources(both)
    }

    /// What is in either.
    pub(super) fn or(&self, other: &Sources) -> Sources {
        match (self.is_empty(), other.is_empty()) {
            (true, _) => other.clone(),
            (_, true) => self.clone(),
            _ => self.0.iter().chain(&other.0).copied().collect(),
        }
    }

    /// What is in this one alone.
    pub(super) fn minus(&self, other: &Sources) -> Sources {
        self.and(&other.complement())
    }

    /// All numbers that are not in it, beyond the family's last too.
    fn complement(&self) -> Sources {
        let mut gaps = Vec::new();
        let mut next = Some(0);
        for &(first, last) in &self.0 {
            if let Some(from) = next.filter(|from| *from < first) {
                gaps.push((from, first - 1));
            }
            next = last.checked_add(1);
        }
        gaps.extend(next.map(|from| (from, u128::MAX)));
        Sources(gaps)
    }

    /// The fewest networks that make it up.
    pub(super) fn networks(&self, ip: Ip) -> Vec<IpNet> {
        let v4 = |n: u128| Ipv4Addr::from_bits(u32::try_from(n).unwrap_or(u32::MAX));
        let nets = self.0.iter().flat_map(|&(first, last)| -> Vec<IpNet> {
            match ip {
                Ip::V4 => Ipv4Subnets::new(v4(first), v4(last), 0).map(IpNet::from).collect(),
                Ip::V6 => {
                    let (first, last) = (Ipv6Addr::from_bits(first), Ipv6Addr::from_bits(last));
                    Ipv6Subnets::new(first, last, 0).map(IpNet::from).collect()
                }
            }
        });
        nets.collect()
    }
}

impl FromIterator<(u128, u128)> for Sources {
    fn from_iter<I: IntoIterator<Item = (u128, u128)>>(ranges: I) -> Sources {
        let mut ranges: Vec<_> = ranges.into_iter().filter(|(first, last)| first <= last).collect();
        ranges.sort_unstable();
        let mut merged: Vec<(u128, u128)> = Vec::new();
        for (first, last) in ranges {
            match merged.last_mut() {
                Some(before) if before.1 == u128::MAX || first <= before.1 + 1 => before.1 = before.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        Sources(merged)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_sources() -> impl Strategy<Value = Sources> {
        let end = prop_oneof![0..40_u128, u128::MAX - 4..=u128::MAX];
        prop::collection::vec((end.clone(), end), 0..6).prop_map(Sources::from_iter)
    }

    fn has(set: &Sources, n: u128) -> bool {
        set.ranges().iter().any(|&(first, last)| (first..=last).contains(&n))
    }

    proptest! {
        #[test]
        fn the_operations_are_those_of_sets(a in any_sources(), b in any_sources()) {
            for n in (0..45).chain(u128::MAX - 6..=u128::MAX) {
                prop_assert_eq!(has(&a.and(&b), n), has(&a, n) && has(&b, n));
                prop_assert_eq!(has(&a.or(&b), n), has(&a, n) || has(&b, n));
                prop_assert_eq!(has(&a.minus(&b), n), has(&a, n) && !has(&b, n));
            }
            for set in [a.and(&b), a.or(&b), a.minus(&b)] {
                prop_assert!(set.ranges().windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
            }
        }
    }

    #[test]
    fn networks_and_ranges_are_the_same() {
        let nets: Vec<IpNet> = ["10.0.0.0/8", "192.0.2.1/32"].map(|net| net.parse().unwrap()).into();
        assert_eq!(Sources::nets(Ip::V4, &nets).networks(Ip::V4), nets);
        assert!(Sources::nets(Ip::V6, &nets).is_empty());
        assert_eq!(Sources::all(Ip::V6).networks(Ip::V6), ["::/0".parse::<IpNet>().unwrap()]);
        assert_eq!(Sources::all(Ip::V4).networks(Ip::V4), ["0.0.0.0/0".parse::<IpNet>().unwrap()]);
    }
}
