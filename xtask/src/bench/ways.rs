//! The ways to move a domain that are compared, and what each needs.

use std::time::Duration;

use bascule_lab::pair::{Guest, Pair};
use bascule_lab::{Node, Order};
use clap::ValueEnum;
use serde::Serialize;

use super::link::wait_for_listener;

/// Where `xl migrate-receive` listens in plain TCP; ours is 8002.
const XL_TCP_PORT: u16 = 8003;
/// How long the receiver waits for the sender, and for its own end when nobody came, in seconds.
const ACCEPT_LIMIT_S: u32 = 60;
/// How fast a dirtying guest rewrites its memory, in KiB/s.
const DIRTY_KIB_S: u64 = 2048;

/// What the guest does meanwhile, beside its counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Load {
    /// Nothing.
    Idle,
    /// It rewrites its memory.
    Dirtying,
}

/// With whose programs a domain is made and moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tools {
    /// xl and the stock scripts.
    Stock,
    /// Ours.
    Bascule,
}

/// A way to move a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Way {
    /// `bascule migrate`, never two Primaries, encrypted by the kernel.
    Bascule,
    /// The same, encrypted by a relay.
    BasculeRelayed,
    /// The same, in clear.
    BasculeClear,
    /// `bascule migrate --handover dual`.
    BasculeDual,
    /// `xl migrate` over plain TCP.
    XlTcp,
    /// `xl migrate` as it is, over ssh.
    XlSsh,
}

impl Load {
    pub(super) const ALL: [Self; 2] = [Self::Idle, Self::Dirtying];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Dirtying => "dirtying 2 MiB/s",
        }
    }

    pub(super) fn order(self) -> Order {
        match self {
            Self::Idle => Order::Dirty(0),
            Self::Dirtying => Order::Dirty(DIRTY_KIB_S),
        }
    }
}

impl Tools {
    /// A line of shell that makes the domain.
    pub(super) fn create(self, guest: Guest) -> String {
        match self {
            Self::Stock => format!("xl create {}", guest.file()),
            Self::Bascule => format!("bascule create {}", guest.file()),
        }
    }

    pub(super) fn ways(self) -> &'static [Way] {
        match self {
            Self::Stock => &[Way::XlTcp, Way::XlSsh],
            Self::Bascule => &[Way::Bascule, Way::BasculeRelayed, Way::BasculeClear, Way::BasculeDual],
        }
    }
}

impl Way {
    pub(super) const ALL: [Self; 6] =
        [Self::Bascule, Self::BasculeRelayed, Self::BasculeClear, Self::BasculeDual, Self::XlTcp, Self::XlSsh];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Bascule => "bascule migrate",
            Self::BasculeRelayed => "bascule migrate, relayed",
            Self::BasculeClear => "bascule migrate, in clear",
            Self::BasculeDual => "bascule migrate --handover dual",
            Self::XlTcp => "xl migrate over TCP",
            Self::XlSsh => "xl migrate over ssh",
        }
    }

    /// A line of shell that moves the domain. With `-s ''`, xl takes its second word for the transport's command line (xl_migrate.c).
    pub(super) fn command(self, guest: Guest, to: &Node) -> String {
        let (name, host) = (guest.name, to.name());
        match self {
            Self::Bascule | Self::BasculeRelayed | Self::BasculeClear => {
                format!("bascule migrate --json {name} {host}")
            }
            Self::BasculeDual => format!("bascule migrate --json --handover dual {name} {host}"),
            Self::XlTcp => {
                format!("xl migrate -s '' {name} 'exec socat -b 65536 STDIO TCP:{host}:{XL_TCP_PORT}'")
            }
            Self::XlSsh => format!("xl migrate {name} {host}"),
        }
    }

    /// Makes the destination ready. The receiver becomes `xl migrate-receive` on the connection itself (socat's nofork), so that
    /// nothing copies the stream there: plain TCP at its best.
    pub(super) fn prepare(self, pair: &Pair, to: &Node) -> anyhow::Result<()> {
        if let Some(security) = self.security() {
            return (1..=2).try_for_each(|nr| pair.configure(nr, security));
        }
        if self != Self::XlTcp {
            return Ok(());
        }
        to.ok(&format!(
            "setsid socat TCP-LISTEN:{XL_TCP_PORT},reuseaddr,accept-timeout={ACCEPT_LIMIT_S} \
             EXEC:'xl migrate-receive',nofork </dev/null >/run/bench-receive 2>&1 &"
        ))?;
        wait_for_listener(pair, to, XL_TCP_PORT)
    }

    /// The settings of both nodes, where there are any.
    fn security(self) -> Option<&'static str> {
        match self {
            Self::Bascule | Self::BasculeDual => Some(""),
            Self::BasculeRelayed => Some("[security]\nkernel-tls = false\n"),
            Self::BasculeClear => Some("[security]\nin-clear = ['10.99.0.0/24']\n"),
            Self::XlTcp | Self::XlSsh => None,
        }
    }

    /// What the destination said, where that is not in what the source printed.
    pub(super) fn far_side(self, to: &Node) -> String {
        match self {
            Self::XlTcp => to.run("cat /run/bench-receive").map(|output| output.stdout).unwrap_or_default(),
            _ => String::new(),
        }
    }
}

/// How long a guest may take to answer an order.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(120);
