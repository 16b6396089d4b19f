//! `bascule console`, and what `create -c` and `restore -c` attach to.

use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bascule::console::{self, ESCAPE, Ended, Ends, Lock, Raw, Which};
use bascule::ids::DomId;
use bascule::xen::{ConsoleLine, Context};
use clap::{Args, ValueEnum};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::flag;
use signal_hook::low_level::pipe;

use super::exit::Error;

/// Attach to a domain's console
///
/// What is typed goes to the domain, what it writes is shown. Ctrl-] detaches, and the domain runs on; it also ends when the domain does.
///
/// Where standard input is no terminal, it is sent as it is, and its end is the end; one that has nothing to say, such as /dev/null, only
/// listens, until the domain ends. One at a time has a domain's console, xl's included.
#[derive(Debug, Args)]
pub(crate) struct Console {
    /// The domain, by name or number
    domain: String,
    /// The number of the console
    #[arg(short, long, default_value_t = 0)]
    num: u32,
    /// Its kind; that of the domain's own first console unless given: a serial line for HVM, else PV
    #[arg(short = 't', long = "type", value_name = "TYPE")]
    kind: Option<Kind>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Pv,
    Serial,
}

/// Runs the command.
pub(crate) fn run(args: &Console) -> Result<(), Error> {
    let context = Context::open()?;
    let domain = context.find(&args.domain)?.domain;
    if domain.domid == DomId(0) {
        return Err("Domain 0 is this host's own, and has its console elsewhere".into());
    }
    let which = match args.kind {
        None => Which::Usual(args.num),
        Some(Kind::Pv) => Which::Pv(args.num),
        Some(Kind::Serial) => Which::Serial(args.num),
    };
    Attached::to(&context, domain.domid, &domain.name, which)?.attend()
}

/// A console that somebody shall see.
pub(super) struct Attached<'a> {
    name: String,
    console: console::Console<ConsoleLine<'a>>,
    _lock: Lock,
}

/// How long xenconsoled may take to name a terminal for a domain that has just been made.
const TTY_WAIT: Duration = Duration::from_secs(10);

impl<'a> Attached<'a> {
    pub(super) fn to(context: &'a Context, domid: DomId, name: &str, which: Which) -> Result<Attached<'a>, Error> {
        let lock = Lock::take(domid)?.ok_or_else(|| {
            format!("The console of {name} is attached already, by another bascule console or by xl console")
        })?;
        let console = console::Console::attach(context.console(domid, which)?, Instant::now() + TTY_WAIT)?;
        Ok(Attached { name: name.to_owned(), console, _lock: lock })
    }

    /// Until one of both ends it. Afterwards signals are what they were: a domain may still be being made.
    pub(super) fn attend(self) -> Result<(), Error> {
        let (stop, stopper) = UnixStream::pair()?;
        let over = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT, SIGHUP, SIGQUIT] {
            flag::register_conditional_default(signal, Arc::clone(&over))?;
            pipe::register(signal, stopper.try_clone()?)?;
        }
        let ended = self.attend_until(&stop);
        over.store(true, Ordering::Relaxed);
        ended
    }

    fn attend_until(mut self, stop: &UnixStream) -> Result<(), Error> {
        let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
        let typed = stdin.is_terminal();
        if typed {
            tell(&format!("The console of {}; Ctrl-] detaches", self.name));
        }
        let raw = typed.then(|| Raw::new(stdin.as_fd())).flatten();
        let escape = typed.then_some(ESCAPE);
        let ends = Ends { input: stdin.as_fd(), output: stdout.as_fd(), stop: stop.as_fd(), escape };
        let ended = self.console.run(ends);
        drop(raw);
        match ended? {
            Ended::Stopped => Err("Asked to stop; the domain goes on".into()),
            Ended::Domain if typed => {
                tell(&format!("\n{} has shut down, or is gone", self.name));
                Ok(())
            }
            Ended::Detached => {
                tell("");
                Ok(())
            }
            Ended::Domain | Ended::Input | Ended::Output => Ok(()),
        }
    }
}

/// The console of a domain that is still being made, on a thread of its own: what makes it is busy.
pub(super) struct Attending(JoinHandle<Result<(), Error>>);

impl Attending {
    /// Returns when it is attached, or cannot be.
    pub(super) fn begin(domid: DomId, name: &str) -> Attending {
        let (name, (tried, attached)) = (name.to_owned(), channel());
        let thread = std::thread::spawn(move || {
            let context = Context::open()?;
            let console = Attached::to(&context, domid, &name, Which::Usual(0));
            // Nobody waits for a thread that is late.
            let _ = tried.send(());
            console?.attend()
        });
        let _ = attached.recv_timeout(TTY_WAIT);
        Attending(thread)
    }

    /// Waits until it is over.
    pub(super) fn end(self) -> Result<(), Error> {
        self.0.join().unwrap_or_else(|_| Err("The console's thread panicked".into()))
    }
}

#[expect(clippy::print_stderr, reason = "the program's messages")]
fn tell(line: &str) {
    eprintln!("{line}");
}
