//! The nic hotplug program: `vif-bridge online|offline type_if=vif` and `vif-bridge add|remove type_if=tap`.
//!
//! Semantics of the stock script of that name, without a shell: the interface gets the address that a bridge's port has,
//! no addresses of its own, an MTU, goes into its bridge and up; `hotplug-status` then tells netback that it may connect. An
//! HVM domain's emulated nic (`type_if=tap`) is treated alike, without a status of its own.
//!
//! Not done, unlike there: iptables rules (bridged traffic passes iptables only where `bridge-nf-call-iptables` is on; then
//! the host's own rules must let the bridge's ports talk) and the shell hooks of `vif-post.d`.

use std::fs;
use std::io;

use super::Backend;
use super::link::{Change, Kind, Link, Links};
use crate::ids::DomId;
use crate::xen::xenstore;

/// The highest address that is not a broadcast: a bridge takes the lowest of its ports for its own, and must not take this one.
const PORT_ADDRESS: [u8; 6] = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff];
/// What stands behind the name of an emulated nic's interface (libxl, TAP_DEVICE_SUFFIX).
const EMULATED_SUFFIX: &str = "-emu";
/// Where the kernel says whether bridged packets pass iptables.
const BRIDGE_NETFILTER: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// Which interface of a nic the call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// Netback's.
    Vif,
    /// The device model's, for the emulated nic.
    Tap,
}

/// What to do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Connect it to its bridge.
    Connect,
    /// Take it out of its bridge.
    Disconnect,
    /// A call that is about the other kind of interface.
    Nothing,
}

/// A call's arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arguments {
    /// What to do.
    pub action: Action,
    /// With which interface.
    pub port: Port,
    /// The bridge, where xenstore names none.
    pub bridge: Option<String>,
}

/// Arguments that the convention does not know.
#[derive(Debug, thiserror::Error)]
#[error("Usage: vif-bridge online|offline [type_if=vif] | add|remove type_if=tap [bridge=NAME]; got {got:?}")]
pub struct Usage {
    got: Vec<String>,
}

/// Why a nic was not connected.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Xenstore failed.
    #[error("Xenstore failed")]
    Xenstore(#[from] xenstore::Error),
    /// Rtnetlink failed.
    #[error("Interface {interface} could not be {verb}")]
    Link {
        /// The interface.
        interface: String,
        /// What was tried, as a participle.
        verb: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The interface is not there.
    #[error("There is no interface {interface}")]
    NoInterface {
        /// The interface.
        interface: String,
    },
    /// The name that the nic is to have is taken.
    #[error("Interface {interface} cannot be renamed: there is an interface {name} already")]
    NameTaken {
        /// The interface.
        interface: String,
        /// The name.
        name: String,
    },
    /// No bridge was named and there is none.
    #[error("No bridge was named and this host has none")]
    NoBridge,
    /// The bridge is not there.
    #[error("There is no bridge {bridge}")]
    UnknownBridge {
        /// The bridge.
        bridge: String,
    },
    /// A bridge that the kernel's bridge module does not run.
    #[error("{bridge} is an Open vSwitch bridge; use script=vif-openvswitch for this nic")]
    OpenVSwitch {
        /// The bridge.
        bridge: String,
    },
    /// An interface that is no bridge.
    #[error("{bridge} is no bridge")]
    NotABridge {
        /// The interface.
        bridge: String,
    },
    /// An MTU that is no number.
    #[error("MTU {mtu:?} is not a number of bytes")]
    BadMtu {
        /// What xenstore has.
        mtu: String,
    },
}

impl Arguments {
    /// Reads the arguments behind the program's name.
    ///
    /// # Errors
    /// [`Usage`].
    pub fn parse(arguments: &[String]) -> Result<Self, Usage> {
        let usage = || Usage { got: arguments.to_vec() };
        let (command, settings) = arguments.split_first().ok_or_else(usage)?;
        let port = match setting(settings, "type_if") {
            None | Some("vif") => Port::Vif,
            Some("tap") => Port::Tap,
            Some(_) => return Err(usage()),
        };
        let action = action(command, port).ok_or_else(usage)?;
        Ok(Self { action, port, bridge: setting(settings, "bridge").map(str::to_owned) })
    }
}

fn setting<'a>(settings: &'a [String], name: &str) -> Option<&'a str> {
    let values = settings.iter().filter_map(|setting| setting.split_once('='));
    values.filter(|(key, value)| *key == name && !value.is_empty()).map(|(_, value)| value).next_back()
}

/// `online` and `offline` are netback's, `add` and `remove` the device model's; the stock script ignores the other pairs.
fn action(command: &str, port: Port) -> Option<Action> {
    match (command, port) {
        ("online", Port::Vif) | ("add", Port::Tap) => Some(Action::Connect),
        ("offline", Port::Vif) | ("remove", Port::Tap) => Some(Action::Disconnect),
        ("online" | "offline" | "add" | "remove", _) => Some(Action::Nothing),
        _ => None,
    }
}

/// One call of the program.
#[derive(Debug)]
pub struct Call<'a> {
    backend: Backend<'a>,
    port: Port,
    interface: String,
    bridge: Option<String>,
}

impl<'a> Call<'a> {
    /// A call for a nic's backend; `interface` is the name that its interface was made with, `bridge` what the arguments say.
    #[must_use]
    pub fn new(backend: Backend<'a>, port: Port, interface: &str, bridge: Option<String>) -> Self {
        Self { backend, port, interface: interface.to_owned(), bridge }
    }

    /// Connects the nic to its bridge. Nothing is missing or done twice when it is called again.
    ///
    /// # Errors
    /// The interface may have been renamed or set up in part; libxl destroys it.
    pub fn connect(&self) -> Result<(), Error> {
        let mut links = Links::open().map_err(link_error(&self.interface, "looked up"))?;
        let link = self.named_interface(&mut links)?;
        let bridge = self.find_bridge(&mut links)?;
        prepare(&mut links, &link)?;
        self.set_mtu(&mut links, &link, &bridge)?;
        if link.master != Some(bridge.index) {
            change(&mut links, &link, Change::Master(bridge.index), "added to its bridge")?;
        }
        change(&mut links, &link, Change::Up(true), "set up")?;
        warn_of_netfilter(&link.name);
        match self.port {
            Port::Vif => Ok(self.backend.write("hotplug-status", "connected")?),
            Port::Tap => Ok(()),
        }
    }

    /// Takes the nic out of its bridge. An interface that is gone is no error: netback removes it by itself.
    ///
    /// # Errors
    /// None of the interface's; [`Error::Xenstore`].
    pub fn disconnect(&self) -> Result<(), Error> {
        let name = self.wanted_name()?.unwrap_or_else(|| self.interface.clone());
        if let Err(error) = take_out(&name) {
            tracing::info!(interface = %name, %error, "interface not taken out of its bridge");
        }
        Ok(())
    }

    /// The interface under the name that it is to have.
    fn named_interface(&self, links: &mut Links) -> Result<Link, Error> {
        let found = find(links, &self.interface)?;
        let Some(wanted) = self.wanted_name()?.filter(|wanted| *wanted != self.interface) else {
            return found.ok_or_else(|| Error::NoInterface { interface: self.interface.clone() });
        };
        match (found, find(links, &wanted)?) {
            (Some(_), Some(_)) => Err(Error::NameTaken { interface: self.interface.clone(), name: wanted }),
            (Some(link), None) => rename(links, link, wanted),
            (None, Some(renamed)) => Ok(renamed),
            (None, None) => Err(Error::NoInterface { interface: self.interface.clone() }),
        }
    }

    /// The name that the domain's configuration gives the nic (`vifname`).
    fn wanted_name(&self) -> Result<Option<String>, Error> {
        let name = self.backend.read("vifname")?;
        Ok(match self.port {
            Port::Vif => name,
            Port::Tap => name.map(|name| format!("{name}{EMULATED_SUFFIX}")),
        })
    }

    /// The bridge that xenstore names, else the arguments, else the host's first.
    fn find_bridge(&self, links: &mut Links) -> Result<Link, Error> {
        let named = self.backend.read("bridge")?.or_else(|| self.bridge.clone());
        let Some(name) = named else {
            return first_bridge(links);
        };
        let bridge = match find(links, &name)? {
            None => find_renamed_bridge(links, &name)?,
            found => found,
        };
        let bridge = bridge.ok_or(Error::UnknownBridge { bridge: name })?;
        match bridge.kind {
            Kind::Bridge => Ok(bridge),
            Kind::OpenVSwitch => Err(Error::OpenVSwitch { bridge: bridge.name }),
            Kind::Other => Err(Error::NotABridge { bridge: bridge.name }),
        }
    }

    /// The MTU that the configuration gives the nic, else the bridge's. The domain's side is told what it is. A driver that
    /// does not take it leaves the interface with its own, as with the stock script.
    fn set_mtu(&self, links: &mut Links, link: &Link, bridge: &Link) -> Result<(), Error> {
        let mtu = match self.backend.read("mtu")? {
            None => bridge.mtu,
            Some(text) => text.parse().map_err(|_| Error::BadMtu { mtu: text })?,
        };
        if mtu == 0 {
            return Ok(());
        }
        if let Err(error) = links.change(link.index, Change::Mtu(mtu)) {
            tracing::warn!(interface = %link.name, mtu, %error, "MTU not set");
        }
        match self.port {
            Port::Vif => Ok(self.backend.nodes.write(&self.frontend_node("mtu"), &mtu.to_string())?),
            Port::Tap => Ok(()),
        }
    }

    fn frontend_node(&self, node: &str) -> String {
        let (DomId(domid), devid) = (self.backend.domid, self.backend.devid);
        format!("/local/domain/{domid}/device/vif/{devid}/{node}")
    }
}

/// Down, with a port's address and none of its own at the network layer.
fn prepare(links: &mut Links, link: &Link) -> Result<(), Error> {
    if link.is_up {
        change(links, link, Change::Up(false), "set down")?;
    }
    if link.address != PORT_ADDRESS
        && let Err(error) = links.change(link.index, Change::Address(PORT_ADDRESS))
    {
        tracing::warn!(interface = %link.name, %error, "address not set");
    }
    links.flush_addresses(link.index).map_err(link_error(&link.name, "freed of its addresses"))
}

fn rename(links: &mut Links, link: Link, name: String) -> Result<Link, Error> {
    if link.is_up {
        change(links, &link, Change::Up(false), "set down")?;
    }
    change(links, &link, Change::Name(name.clone()), "renamed")?;
    Ok(Link { name, is_up: false, ..link })
}

/// Down, and out of the bridge that it is in.
fn take_out(name: &str) -> io::Result<()> {
    let mut links = Links::open()?;
    let Some(link) = links.find(name)? else {
        return Ok(());
    };
    links.change(link.index, Change::Up(false))?;
    match link.master {
        Some(_) => links.change(link.index, Change::Master(0)),
        None => Ok(()),
    }
}

fn first_bridge(links: &mut Links) -> Result<Link, Error> {
    let all = links.all().map_err(link_error("(all)", "listed"))?;
    all.into_iter().find(|link| link.kind == Kind::Bridge).ok_or(Error::NoBridge)
}

/// Old configurations say `xenbrN` for the bridge that is called `ethN` today.
fn find_renamed_bridge(links: &mut Links, name: &str) -> Result<Option<Link>, Error> {
    match name.strip_prefix("xenbr") {
        None => Ok(None),
        Some(number) => Ok(find(links, &format!("eth{number}"))?.filter(|link| link.kind == Kind::Bridge)),
    }
}

fn find(links: &mut Links, name: &str) -> Result<Option<Link>, Error> {
    links.find(name).map_err(link_error(name, "looked up"))
}

fn change(links: &mut Links, link: &Link, wanted: Change, verb: &'static str) -> Result<(), Error> {
    links.change(link.index, wanted).map_err(link_error(&link.name, verb))
}

fn link_error(interface: &str, verb: &'static str) -> impl FnOnce(io::Error) -> Error + use<> {
    let interface = interface.to_owned();
    move |source| Error::Link { interface, verb, source }
}

/// The stock script opens iptables for the interface; here the host's administrator decides, and is told.
fn warn_of_netfilter(interface: &str) {
    if fs::read_to_string(BRIDGE_NETFILTER).is_ok_and(|on| on.trim() != "0") {
        tracing::warn!(interface, "bridged packets pass iptables here; no rule is added for this interface");
    }
}

#[cfg(test)]
mod tests;
