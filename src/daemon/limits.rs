//! How many connections there may be, and which of those that have not said who they are makes room for another.
//!
//! A half-open connection costs a descriptor, and a process once its peer has said something; anybody who may connect can make one. So an address has a few, and so has a network of
//! IPv6 (a host has a /64 to itself as a rule, but neighbours share one too, hence more of them than of an address). When there is no room,
//! a newcomer takes the place of the oldest of whoever has more than it has: a host with many connections, or many addresses, does not keep
//! out one that needs a single connection for the moment of a handshake. One that failed counts for its address a
//! little longer, or a host could have processes started as fast as it can connect.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// The most sessions at one time, unless the configuration says otherwise.
pub const SESSIONS_MAX: usize = 16;
/// The same of one address: it leaves room for the others.
pub const SESSIONS_OF_ADDRESS_MAX: usize = 8;
/// The most connections at one time that have not said who they are.
pub const HALF_OPEN_MAX: usize = 64;
/// The same of one address: so many migrations of a host may begin at once.
pub const HALF_OPEN_OF_ADDRESS_MAX: usize = 8;
/// How many times as many a /64 of IPv6 may have as an address of it.
const ADDRESSES_OF_NETWORK: usize = 4;
/// How long a connection that failed to say who it is counts for its address.
pub(super) const FAILED_COUNTS: Duration = Duration::from_secs(1);

/// How many connections there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most sessions at one time, of peers that are known.
    pub sessions: usize,
    /// The same of one address.
    pub sessions_per_address: usize,
    /// The most connections at one time whose peer is not known yet.
    pub half_open: usize,
    /// The same of one address.
    pub half_open_per_address: usize,
    /// How long a peer may take to prove who it is.
    pub authentication: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            sessions: SESSIONS_MAX,
            sessions_per_address: SESSIONS_OF_ADDRESS_MAX,
            half_open: HALF_OPEN_MAX,
            half_open_per_address: HALF_OPEN_OF_ADDRESS_MAX,
            authentication: crate::receive::Timeouts::default().authentication,
        }
    }
}

/// Whether there is room for another connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// There is.
    Free,
    /// If that one of them goes.
    InsteadOf(usize),
    /// There is none.
    None(&'static str),
}

impl Limits {
    /// Whether there is room for one of `newcomer` beside those that are half open, the oldest first, and those that failed lately.
    pub(super) fn room(&self, newcomer: IpAddr, half_open: &[IpAddr], failed: &[IpAddr]) -> Room {
        let same = half_open.iter().chain(failed).filter(|address| **address == newcomer).count();
        if same >= self.half_open_per_address {
            return Room::None("of its address");
        }
        let crowd = Crowd::of(half_open);
        let network = network(newcomer);
        let of_network = self.half_open_per_address.saturating_mul(ADDRESSES_OF_NETWORK);
        if crowd.networks.get(&network).is_some_and(|count| *count >= of_network) {
            return crowd
                .instead(newcomer, |address| self::network(address) == network)
                .unwrap_or(Room::None("of its network"));
        }
        match half_open.len() < self.half_open {
            true => Room::Free,
            false => crowd.instead(newcomer, |_| true).unwrap_or(Room::None("in all")),
        }
    }

    /// Whether a peer that is known may have a session beside those of these addresses; if not, why.
    pub(super) fn session(&self, newcomer: IpAddr, sessions: &[IpAddr]) -> Result<(), &'static str> {
        let same = sessions.iter().filter(|address| **address == newcomer).count();
        match (sessions.len() < self.sessions, same < self.sessions_per_address) {
            (false, _) => Err("in all"),
            (true, false) => Err("of its address"),
            (true, true) => Ok(()),
        }
    }
}

/// Who has how many.
struct Crowd<'a> {
    half_open: &'a [IpAddr],
    addresses: HashMap<IpAddr, usize>,
    networks: HashMap<IpAddr, usize>,
}

impl Crowd<'_> {
    fn of(half_open: &[IpAddr]) -> Crowd<'_> {
        let mut crowd = Crowd { half_open, addresses: HashMap::new(), networks: HashMap::new() };
        for address in half_open {
            *crowd.addresses.entry(*address).or_default() += 1;
            *crowd.networks.entry(network(*address)).or_default() += 1;
        }
        crowd
    }

    /// The oldest connection of the greediest of those that may go, if it is greedier than the newcomer.
    fn instead(&self, newcomer: IpAddr, may_go: impl Fn(IpAddr) -> bool) -> Option<Room> {
        let candidates = self.half_open.iter().enumerate().filter(|(_, address)| may_go(**address));
        // The last of equals is the maximum, so the oldest comes last.
        let (place, greediest) = candidates.rev().max_by_key(|(_, address)| self.greed(**address))?;
        (self.greed(newcomer) < self.greed(*greediest)).then_some(Room::InsteadOf(place))
    }

    fn greed(&self, address: IpAddr) -> (usize, usize) {
        let count = |of: &HashMap<IpAddr, usize>, key| of.get(&key).copied().unwrap_or(0);
        (count(&self.networks, network(address)), count(&self.addresses, address))
    }
}

/// What a host has to itself: its address, or the /64 of IPv6.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        sessions: 4,
        sessions_per_address: 2,
        half_open: 8,
        half_open_per_address: 2,
        authentication: Duration::from_secs(1),
    };

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn all(addresses: &[&str]) -> Vec<IpAddr> {
        addresses.iter().map(|address| ip(address)).collect()
    }

    #[test]
    fn an_address_has_a_few_and_what_failed_counts() {
        let half_open = all(&["10.0.0.1"]);
        assert_eq!(LIMITS.room(ip("10.0.0.1"), &half_open, &[]), Room::Free);
        assert_eq!(LIMITS.room(ip("10.0.0.1"), &half_open, &half_open), Room::None("of its address"));
        assert_eq!(LIMITS.room(ip("10.0.0.2"), &half_open, &half_open), Room::Free);
    }

    #[test]
    fn the_greediest_makes_room_and_the_oldest_of_equals() {
        let mut half_open = all(&["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.2", "10.0.0.4"]);
        half_open.extend(all(&["10.0.0.5", "10.0.0.5", "10.0.0.6"]));
        assert_eq!(LIMITS.room(ip("10.0.0.9"), &half_open, &[]), Room::InsteadOf(1));
        assert_eq!(LIMITS.room(ip("10.0.0.1"), &half_open, &[]), Room::InsteadOf(1));
        let each_one: Vec<IpAddr> = (1..=8).map(|n| ip(&format!("10.0.0.{n}"))).collect();
        assert_eq!(LIMITS.room(ip("10.0.0.9"), &each_one, &[]), Room::InsteadOf(0));
        assert_eq!(LIMITS.room(ip("10.0.0.8"), &each_one, &[]), Room::None("in all"));
    }

    #[test]
    fn a_network_of_ipv6_is_one_host_to_the_others_and_many_to_itself() {
        let neighbours: Vec<IpAddr> = (1..=8).map(|n| ip(&format!("2001:db8::{n}"))).collect();
        assert_eq!(LIMITS.room(ip("2001:db8::99"), &neighbours, &[]), Room::InsteadOf(0));
        assert_eq!(LIMITS.room(ip("2001:db8::1"), &neighbours, &[]), Room::None("of its network"));
        assert_eq!(LIMITS.room(ip("2001:db8:0:1::1"), &neighbours, &[]), Room::InsteadOf(0));
        let greedy = all(&["2001:db8::1", "2001:db8::2", "10.0.0.1"]);
        let tight = Limits { half_open: 3, ..LIMITS };
        assert_eq!(tight.room(ip("10.0.0.1"), &greedy, &[]), Room::InsteadOf(0));
    }

    #[test]
    fn a_mapped_address_is_the_one_of_ipv4() {
        assert_eq!(network(ip("::ffff:10.0.0.1")), ip("10.0.0.1"));
        assert_eq!(network(ip("2001:db8:1:2:3:4:5:6")), ip("2001:db8:1:2::"));
    }

    #[test]
    fn sessions_are_bounded_in_all_and_by_address() {
        assert_eq!(LIMITS.session(ip("10.0.0.1"), &all(&["10.0.0.1", "10.0.0.2"])), Ok(()));
        assert_eq!(LIMITS.session(ip("10.0.0.1"), &all(&["10.0.0.1", "10.0.0.1"])), Err("of its address"));
        assert_eq!(LIMITS.session(ip("10.0.0.9"), &all(&["10.0.0.1"; 4])), Err("in all"));
    }
}
