//! The rules of the old ip_tables and ip6_tables modules, as their socket options hand them out.
//!
//! Only tables that are there are asked for: asking for another one would make it. Layouts are those of linux/netfilter_ipv4/ip_tables.h
//! and linux/netfilter_ipv6/ip6_tables.h on a 64-bit machine.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd;

use socket2::{Domain, Socket, Type};

use super::Error;
use super::ruleset::{Chain, Expr, Family, Hook, Point, Rule, Table, Test, Verdict};
use super::sources::Ip;
use super::split::as_number;
use super::xt;

/// Tables of one family.
const TABLES_MAX: usize = 16;
/// The longest table, in bytes.
const TABLE_LEN_MAX: usize = 64 << 20;
/// How often it is tried to read a table that does not change meanwhile.
const TRIES_MAX: u32 = 8;

/// Reads all tables of both families that are there.
pub(super) fn read() -> Result<Vec<Table>, Error> {
    let mut tables = Vec::new();
    for ip in [Ip::V4, Ip::V6] {
        let of = |source: io::Error| match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Error::NotRoot,
            _ => Error::Legacy { tool: Family::Legacy(ip).word(), source },
        };
        for name in names(ip).map_err(of)? {
            tables.push(table(ip, &name).map_err(of)?);
        }
    }
    Ok(tables)
}

/// The tables that are there in this thread's network namespace; a kernel without the module has no such list.
fn names(ip: Ip) -> io::Result<Vec<String>> {
    let list = match ip {
        Ip::V4 => "/proc/thread-self/net/ip_tables_names",
        Ip::V6 => "/proc/thread-self/net/ip6_tables_names",
    };
    match std::fs::read_to_string(list) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        text => Ok(text?.lines().take(TABLES_MAX).map(str::to_owned).collect()),
    }
}

fn table(ip: Ip, name: &str) -> io::Result<Table> {
    let domain = if ip == Ip::V4 { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM, None)?;
    for _ in 0..TRIES_MAX {
        let info = Info::ask(&socket, ip, name)?;
        match entries(&socket, ip, name, info.len) {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
            Err(error) => return Err(error),
            Ok(blob) => {
                let garbled = || io::Error::other(format!("the table {name} is not in its format"));
                return parse(ip, name, &info, &blob).ok_or_else(garbled);
            }
        }
    }
    Err(io::Error::other(format!("the table {name} changed each of {TRIES_MAX} times")))
}

const NAME_LEN: usize = 32; // XT_TABLE_MAXNAMELEN
const HOOKS: usize = 5; // NF_INET_NUMHOOKS
const SO_GET_INFO: i32 = 64; // IPT_SO_GET_INFO and IP6T_SO_GET_INFO
const SO_GET_ENTRIES: i32 = 65;
/// struct ipt_getinfo
const INFO_LEN: usize = NAME_LEN + 4 + 2 * 4 * HOOKS + 4 + 4;
/// struct ipt_get_entries, up to the entries
const ENTRIES_AT: usize = NAME_LEN + 8;

/// struct ipt_getinfo: where the rules of each hook begin, and where its policy is.
#[derive(Clone, Debug, PartialEq)]
struct Info {
    valid_hooks: u32,
    begins: [u32; HOOKS],
    policies: [u32; HOOKS],
    len: usize,
}

impl Info {
    fn ask(socket: &Socket, ip: Ip, name: &str) -> io::Result<Info> {
        let mut bytes = request(name, INFO_LEN);
        get(socket, ip, SO_GET_INFO, &mut bytes)?;
        Info::parse(&bytes).ok_or_else(|| io::Error::other("the kernel's answer is too short"))
    }

    fn parse(bytes: &[u8]) -> Option<Info> {
        let (begins_at, policies_at) = (NAME_LEN + 4, NAME_LEN + 4 + 4 * HOOKS);
        let mut info = Info { valid_hooks: u32_at(bytes, NAME_LEN)?, begins: [0; 5], policies: [0; 5], len: 0 };
        for hook in 0..HOOKS {
            info.begins[hook] = u32_at(bytes, begins_at + 4 * hook)?;
            info.policies[hook] = u32_at(bytes, policies_at + 4 * hook)?;
        }
        info.len = usize::try_from(u32_at(bytes, policies_at + 4 * HOOKS + 4)?).ok()?;
        Some(info)
    }

    /// The hook whose rules begin, or end with the policy, at this place.
    fn hook(&self, places: [u32; HOOKS], at: usize) -> Option<usize> {
        (0..HOOKS).find(|hook| self.valid_hooks & (1 << hook) != 0 && places[*hook] as usize == at)
    }
}

fn entries(socket: &Socket, ip: Ip, name: &str, len: usize) -> io::Result<Vec<u8>> {
    if len > TABLE_LEN_MAX {
        return Err(io::Error::other(format!("the table {name} has more than {TABLE_LEN_MAX} bytes")));
    }
    let mut bytes = request(name, ENTRIES_AT + len);
    bytes[NAME_LEN..NAME_LEN + 4].copy_from_slice(&u32::try_from(len).unwrap_or(0).to_ne_bytes());
    get(socket, ip, SO_GET_ENTRIES, &mut bytes)?;
    Ok(bytes.split_off(ENTRIES_AT))
}

fn request(name: &str, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    // The last byte stays its NUL.
    bytes.iter_mut().take(NAME_LEN - 1).zip(name.bytes()).for_each(|(to, from)| *to = from);
    bytes
}

fn get(socket: &Socket, ip: Ip, option: i32, bytes: &mut [u8]) -> io::Result<()> {
    let level = if ip == Ip::V4 { libc::IPPROTO_IP } else { libc::IPPROTO_IPV6 };
    uapi::getsockopt(socket.as_raw_fd(), level, option, bytes)
        .map_err(|errno| io::Error::from_raw_os_error(errno.0))?;
    Ok(())
}

/// Where the parts of an entry are: struct ipt_entry and ip6t_entry.
struct Layout {
    address: usize,
    interfaces: usize,
    protocol: usize,
    flags: usize,
    inverse: usize,
    offsets: usize,
    matches: usize,
}

const V4: Layout =
    Layout { address: 4, interfaces: 16, protocol: 80, flags: 82, inverse: 83, offsets: 88, matches: 112 };
const V6: Layout =
    Layout { address: 16, interfaces: 64, protocol: 128, flags: 131, inverse: 132, offsets: 140, matches: 168 };

/// A rule, and where it is in the table.
struct Entry<'a> {
    at: usize,
    next: usize,
    exprs: Vec<Expr>,
    goes: bool,
    target: &'a str,
    data: &'a [u8],
}

fn parse(ip: Ip, name: &str, info: &Info, blob: &[u8]) -> Option<Table> {
    let mut entries = Vec::new();
    let mut at = 0;
    while at < blob.len() {
        let entry = entry(ip, blob, at)?;
        at = entry.next;
        entries.push(entry);
    }
    let begins: BTreeMap<usize, String> = entries.iter().filter_map(user_chain).collect();
    let mut chains: BTreeMap<String, Chain> = BTreeMap::new();
    let mut current = None;
    for entry in &entries {
        if let Some(hook) = info.hook(info.begins, entry.at) {
            current = Some(HOOK_NAMES[hook].to_owned());
            let chain = Chain { hook: Some(hooked(hook, name)), rules: Vec::new() };
            chains.insert(HOOK_NAMES[hook].to_owned(), chain);
        }
        if let Some((_, name)) = user_chain(entry) {
            chains.entry(name.clone()).or_default();
            current = Some(name);
            continue;
        }
        let chain = current.as_ref().and_then(|name| chains.get_mut(name))?;
        let verdict = target(entry, &begins);
        match (info.hook(info.policies, entry.at), &mut chain.hook) {
            (Some(_), Some(hook)) => hook.accepts = verdict == Expr::Verdict(Verdict::Accept),
            _ => {
                let number = u64::try_from(chain.rules.len()).ok()? + 1;
                let exprs = entry.exprs.iter().cloned().chain([verdict]).collect();
                chain.rules.push(Rule { number, exprs });
            }
        }
    }
    Some(Table { family: Family::Legacy(ip), name: name.to_owned(), chains, sets: BTreeMap::new() })
}

const HOOK_NAMES: [&str; HOOKS] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

/// Each table has one priority (linux/netfilter_ipv4.h); nat's differs from hook to hook, which changes no verdict.
fn hooked(hook: usize, table: &str) -> Hook {
    let point = match hook {
        0 => Point::Prerouting,
        1 => Point::Input,
        _ => Point::Elsewhere,
    };
    let priority = match table {
        "raw" => -300,
        "mangle" => -150,
        "nat" => -100,
        "security" => 50,
        _ => 0,
    };
    Hook { point, priority, accepts: true, nat: table == "nat" }
}

/// An entry whose target is ERROR names the chain that begins after it.
fn user_chain(entry: &Entry<'_>) -> Option<(usize, String)> {
    (entry.target == "ERROR").then(|| (entry.next, text(entry.data)))
}

fn entry(ip: Ip, blob: &[u8], at: usize) -> Option<Entry<'_>> {
    const IP_F_GOTO: [u8; 2] = [2, 4]; // IPT_F_GOTO, IP6T_F_GOTO
    let layout = if ip == Ip::V4 { V4 } else { V6 };
    let bytes = blob.get(at..)?;
    let (target_at, next) = (u16_at(bytes, layout.offsets)?, u16_at(bytes, layout.offsets + 2)?);
    let (target_at, next) = (usize::from(target_at), usize::from(next));
    let bytes = bytes.get(..next)?;
    let mut exprs = header(ip, &layout, bytes)?;
    let mut match_at = layout.matches;
    while match_at < target_at {
        let (name, revision, data, len) = extension(bytes.get(match_at..target_at)?)?;
        exprs.extend(xt::matches(name, revision, data));
        match_at += len;
    }
    let (target, _, data, _) = extension(bytes.get(target_at..)?)?;
    let goes = bytes[layout.flags] & IP_F_GOTO[usize::from(ip == Ip::V6)] != 0;
    (target_at >= layout.matches).then_some(Entry { at, next: at + next, exprs, goes, target, data })
}

/// struct xt_entry_match and xt_entry_target: size, name, revision, data.
fn extension(bytes: &[u8]) -> Option<(&str, u32, &[u8], usize)> {
    const HEADER_LEN: usize = 32;
    const NAME: std::ops::Range<usize> = 2..31;
    let len = usize::from(u16_at(bytes, 0)?);
    let name = bytes.get(NAME)?;
    let name = &name[..name.iter().position(|byte| *byte == 0)?];
    let data = bytes.get(HEADER_LEN..len)?;
    Some((std::str::from_utf8(name).ok()?, bytes[31].into(), data, len))
}

// What is inverted (IPT_INV_… and IP6T_INV_…; those that count here have the same values), and flags.
const INV_IN: u8 = 1;
const INV_OUT: u8 = 2;
const INV_SOURCE: u8 = 8;
const INV_DESTINATION: u8 = 0x10;
const INV_FRAGMENT: u8 = 0x20;
const INV_PROTOCOL: u8 = 0x40;
const IP_F_FRAG: u8 = 1;
const IP6_F_PROTO: u8 = 1;
const IP6_F_TOS: u8 = 2;

/// The conditions of the header itself.
fn header(ip: Ip, layout: &Layout, bytes: &[u8]) -> Option<Vec<Expr>> {
    let inverse = *bytes.get(layout.inverse)?;
    let mut tests = addresses(ip, layout, bytes, inverse)?;
    tests.extend(interfaces(layout, bytes, inverse)?);
    let (flags, number) = (*bytes.get(layout.flags)?, u16_at(bytes, layout.protocol)?);
    let has_protocol = match ip {
        Ip::V4 => number != 0,
        Ip::V6 => flags & IP6_F_PROTO != 0,
    };
    if has_protocol {
        tests.push(Test::Protocol { number, inverted: inverse & INV_PROTOCOL != 0 });
    }
    if ip == Ip::V4 && (flags & IP_F_FRAG != 0) != (inverse & INV_FRAGMENT != 0) {
        tests.push(Test::Never);
    }
    if ip == Ip::V6 && flags & IP6_F_TOS != 0 {
        tests.push(Test::Depends("the traffic class".into()));
    }
    Some(tests.into_iter().map(Expr::Test).collect())
}

fn addresses(ip: Ip, layout: &Layout, bytes: &[u8], inverse: u8) -> Option<Vec<Test>> {
    let address = |number: usize| bytes.get(number * layout.address..(number + 1) * layout.address).map(as_number);
    let [source, destination, source_mask, destination_mask] = [address(0)?, address(1)?, address(2)?, address(3)?];
    let from = |first, last, inverted| Test::Source { first, last, inverted };
    let to = |first, last, inverted| Test::Destination { first, last, inverted };
    let from = range(ip, source, source_mask, inverse & INV_SOURCE != 0, from);
    let to = range(ip, destination, destination_mask, inverse & INV_DESTINATION != 0, to);
    Some(from.into_iter().chain(to).collect())
}

/// A packet that comes in has no interface to go out by.
fn interfaces(layout: &Layout, bytes: &[u8], inverse: u8) -> Option<Vec<Test>> {
    const NAME_LEN: usize = 16; // IFNAMSIZ
    let name = |number: usize| {
        let at = layout.interfaces + NAME_LEN * number;
        bytes.get(at..at + NAME_LEN)
    };
    let [within, out, within_mask, out_mask] = [name(0)?, name(1)?, name(2)?, name(3)?];
    let (inverted, mut tests) = (inverse & INV_IN != 0, Vec::new());
    if within_mask.iter().any(|byte| *byte != 0) || inverted {
        let loopback = within.starts_with(b"lo\0") && within_mask.starts_with(&[0xff; 3]);
        tests.push(Test::Interface { loopback, inverted });
    }
    let is_named = out.iter().zip(out_mask).any(|(byte, mask)| byte & mask != 0);
    if is_named != (inverse & INV_OUT != 0) {
        tests.push(Test::Never);
    }
    Some(tests)
}

fn range(ip: Ip, address: u128, mask: u128, inverted: bool, test: impl Fn(u128, u128, bool) -> Test) -> Option<Test> {
    let host = ip.max() & !mask;
    match host & host.wrapping_add(1) {
        0 if host == ip.max() && !inverted => None,
        0 => Some(test(address & mask, (address & mask) | host, inverted)),
        _ => Some(Test::Depends("an address mask that is no prefix".into())),
    }
}

/// What the standard target's verdict, or another target, does.
fn target(entry: &Entry<'_>, begins: &BTreeMap<usize, String>) -> Expr {
    const REPEAT: i32 = 4; // NF_REPEAT, with which iptables writes RETURN
    if !entry.target.is_empty() {
        return xt::target(entry.target, entry.data);
    }
    let Some(code) = u32_at(entry.data, 0).map(u32::cast_signed) else {
        return Expr::Unknown("a target without a verdict".into());
    };
    let chain = usize::try_from(code).ok();
    let verdict = match (chain, chain.and_then(|at| begins.get(&at))) {
        (Some(at), _) if at == entry.next && !entry.goes => Verdict::Continue,
        (Some(_), Some(chain)) if entry.goes => Verdict::Goto(chain.clone()),
        (Some(_), Some(chain)) => Verdict::Jump(chain.clone()),
        (Some(_), None) => Verdict::Whatever("a jump to nowhere".into()),
        (None, _) if code == -REPEAT - 1 => Verdict::Return,
        (None, _) => xt::netfilter(-(code + 1)),
    };
    Expr::Verdict(verdict)
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_that_are_no_table_make_nothing_panic(
            blob in prop::collection::vec(prop_oneof![any::<u8>(), Just(0), Just(112), Just(152)], 0..700),
            info in prop::collection::vec(any::<u8>(), INFO_LEN),
            v6: bool,
        ) {
            let ip = if v6 { Ip::V6 } else { Ip::V4 };
            parse(ip, "filter", &Info::parse(&info).expect("long enough"), &blob);
        }
    }
}
