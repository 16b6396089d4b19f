//! DRBD's configuration files, as this host sees them.

use std::net::IpAddr;

use drbd_conf::{Config, Disk, Mistakes, Node};

/// This host's configuration; `None` where there is no file.
///
/// # Errors
/// Everything that is wrong with the files, each with its place.
pub fn here() -> Result<Option<Config>, Mistakes> {
    drbd_conf::find().map(|file| drbd_conf::read(&file, &node(), &Disk)).transpose()
}

/// This host, as drbdadm knows it: by its whole name, and for `floating` by its addresses.
pub fn node() -> Node {
    let name = nix::sys::utsname::uname().map(|uname| uname.nodename().to_string_lossy().into_owned());
    Node { name: name.unwrap_or_default(), addresses: addresses() }
}

fn addresses() -> Vec<IpAddr> {
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let of = |address: nix::sys::socket::SockaddrStorage| {
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    };
    interfaces.filter_map(|interface| interface.address.and_then(of)).collect()
}
