//! Where a domain's consoles are: xenconsoled and device models write the name of the terminal into xenstore.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use xen_sys as sys;

use super::context::Context;
use super::domain::RELEASE_DOMAIN;
use super::error::{Error, Result};
use super::xenstore::Xenstore;
use crate::console::{Domain, Line, Seen, Which};
use crate::ids::DomId;
use crate::toolstack::{self, RunState};

/// The console on which a stub domain has the serial line of the domain that it serves (libxl_internal.h, `STUBDOM_CONSOLE_SERIAL`).
const STUBDOM_SERIAL: u32 = 3;

/// A console's place in xenstore, watched.
#[derive(Debug)]
pub struct ConsoleLine<'a> {
    context: &'a Context,
    xenstore: Xenstore,
    domid: DomId,
    /// Where the terminal's name may stand, the first that has one counts.
    nodes: Vec<String>,
    named: u64,
}

impl Context {
    /// A domain's console.
    ///
    /// # Errors
    /// Xenstore does not answer.
    pub fn console(&self, domid: DomId, which: Which) -> Result<ConsoleLine<'_>> {
        // SAFETY: a live context; 0 stands for none (libxl.h, libxl_get_stubdom_id).
        let stub = unsafe { sys::libxl_get_stubdom_id(self.handle.ctx(), domid.0.cast_signed()) };
        let stub = u32::try_from(stub).ok().filter(|stub| *stub != 0).map(DomId);
        let nodes = nodes(domid, stub, self.is_hvm(domid), which);
        let xenstore = Xenstore::open()?;
        for node in nodes.iter().map(String::as_str).chain([RELEASE_DOMAIN]) {
            xenstore.watch(node, "console")?;
        }
        Ok(ConsoleLine { context: self, xenstore, domid, nodes, named: 0 })
    }

    /// Whether its first console is a serial line. A domain that libxl does not know has a PV console, if any.
    fn is_hvm(&self, domid: DomId) -> bool {
        let config = self.retrieve(domid).ok();
        config.and_then(|config| Some(config.value().pointer("/c_info/type")?.as_str()? == "hvm")).unwrap_or(false)
    }
}

/// As libxl has it (libxl_console.c), and as xenconsole falls back from a serial line that is not there.
fn nodes(domid: DomId, stub: Option<DomId>, hvm: bool, which: Which) -> Vec<String> {
    let pv = |domid: DomId, nr: u32| match nr {
        0 => format!("/local/domain/{domid}/console/tty"),
        nr => format!("/local/domain/{domid}/device/console/{nr}/tty"),
    };
    let serial = |nr: u32| format!("/local/domain/{domid}/serial/{nr}/tty");
    match (which, stub) {
        (Which::Pv(nr), _) => vec![pv(domid, nr)],
        (Which::Serial(nr), _) => vec![serial(nr)],
        (Which::Usual(0), Some(stub)) => vec![pv(stub, STUBDOM_SERIAL)],
        (Which::Usual(nr), _) if hvm => vec![serial(nr), pv(domid, nr)],
        (Which::Usual(nr), _) => vec![pv(domid, nr)],
    }
}

impl Line for ConsoleLine<'_> {
    fn fd(&self) -> BorrowedFd<'_> {
        self.xenstore.fd()
    }

    fn look(&mut self) -> std::result::Result<Seen, toolstack::Error> {
        while let Some(event) = self.xenstore.next_event().map_err(Error::from)? {
            self.named += u64::from(event.path != RELEASE_DOMAIN);
        }
        let domain = match self.context.state(self.domid)? {
            None | Some(RunState::Dying) => Domain::Gone,
            Some(RunState::Shutdown) => Domain::ShutDown,
            Some(_) => Domain::Lives,
        };
        for node in &self.nodes {
            if let Some(tty) = self.xenstore.read(node)?.filter(|tty| !tty.is_empty()) {
                return Ok(Seen { tty: Some(PathBuf::from(tty)), named: self.named, domain });
            }
        }
        Ok(Seen { tty: None, named: self.named, domain })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consoles_are_where_libxl_has_them() {
        let (five, six) = (DomId(5), Some(DomId(6)));
        let rows = [
            (None, false, Which::Usual(0), vec!["/local/domain/5/console/tty"]),
            (None, false, Which::Usual(2), vec!["/local/domain/5/device/console/2/tty"]),
            (None, true, Which::Usual(0), vec!["/local/domain/5/serial/0/tty", "/local/domain/5/console/tty"]),
            (None, true, Which::Pv(0), vec!["/local/domain/5/console/tty"]),
            (None, false, Which::Serial(1), vec!["/local/domain/5/serial/1/tty"]),
            (six, true, Which::Usual(0), vec!["/local/domain/6/device/console/3/tty"]),
            (six, true, Which::Serial(0), vec!["/local/domain/5/serial/0/tty"]),
        ];
        for (stub, hvm, which, expected) in rows {
            assert_eq!(nodes(five, stub, hvm, which), expected, "{which:?}");
        }
    }
}
