//! A domain's console, copied to and fro: the terminal that xenconsoled or the device model holds for the domain on one side, two descriptors
//! of the caller on the other.
//!
//! A terminal can be lost while the domain lives: xenconsoled makes another when it is started anew, or its own side broke. So what xenstore says
//! of it is watched as long as the console is attached ([`Line`]). xenconsoled keeps a terminal until the domain is being destroyed, also
//! while that is suspended or has shut down (tools/console/daemon/io.c, enum_domains, 4.17).

mod pump;
mod terminal;

use std::os::fd::BorrowedFd;
use std::path::PathBuf;

pub use self::pump::Console;
pub use self::terminal::{Lock, Raw};
use crate::toolstack::Error;

/// A console of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The one of this number, of the kind that such a domain has: HVM a serial line, else PV.
    Usual(u32),
    /// The PV console of this number.
    Pv(u32),
    /// The serial line of this number.
    Serial(u32),
}

/// What is seen of a domain and its console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The terminal.
    pub tty: Option<PathBuf>,
    /// How often it has been named: a terminal that was lost is back when it is named anew, be it by the same name.
    pub named: u64,
    /// The domain.
    pub domain: Domain,
}

/// What a domain is, as far as its console is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// It runs, or may run again.
    Lives,
    /// It has shut down and is not destroyed yet: its terminal may have a last word.
    ShutDown,
    /// It is gone.
    Gone,
}

/// Who tells where the terminal is.
pub trait Line {
    /// Readable when something may have changed.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Looks.
    ///
    /// # Errors
    /// Xen does not answer.
    fn look(&mut self) -> Result<Seen, Error>;
}

/// The caller's side.
#[derive(Clone, Copy, Debug)]
pub struct Ends<'a> {
    /// What the domain shall read.
    pub input: BorrowedFd<'a>,
    /// What the domain writes.
    pub output: BorrowedFd<'a>,
    /// Readable when it shall end.
    pub stop: BorrowedFd<'a>,
    /// The byte that ends it, where a person types.
    pub escape: Option<u8>,
}

/// Why it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The escape was typed.
    Detached,
    /// The input had an end.
    Input,
    /// Nobody reads the output any more.
    Output,
    /// The domain has shut down or is gone.
    Domain,
    /// It was asked to.
    Stopped,
}

/// The byte of Ctrl-], with which xl's console ends.
pub const ESCAPE: u8 = 0x1d;
