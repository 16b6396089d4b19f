//! The one thread that copies between a domain's terminal and a caller's two descriptors, as long as there are both.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{read, write};

use super::terminal::open;
use super::{Domain, Ended, Ends, Line, Seen};
use crate::toolstack::Error;

/// How long the domain has to answer what an input that has ended has said last.
const ANSWER_WAIT: Duration = Duration::from_secs(1);
/// How many bytes are copied at once.
const CHUNK: usize = 4096;

/// A console that is attached.
#[derive(Debug)]
pub struct Console<L> {
    line: L,
    tty: Option<File>,
    /// How often a terminal had been named when this one was taken.
    named: u64,
    /// What the domain has not read yet.
    typed: Vec<u8>,
}

impl<L: Line> Console<L> {
    /// Waits for the terminal, and takes it.
    ///
    /// # Errors
    /// There is none at `deadline`, or it cannot be used.
    pub fn attach(mut line: L, deadline: Instant) -> Result<Console<L>, Error> {
        loop {
            match line.look()? {
                Seen { domain: Domain::Gone, .. } => return Err("The domain is gone".into()),
                Seen { tty: Some(path), named, .. } => {
                    let tty = Some(open(&path)?);
                    return Ok(Console { line, tty, named, typed: Vec::new() });
                }
                _ => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(
                    "It has no such console: xenconsoled, or its device model, has named no terminal for it".into()
                );
            }
            wait(&mut [PollFd::new(line.fd(), PollFlags::POLLIN)], Some(left))?;
        }
    }

    /// Copies until something ends it.
    ///
    /// # Errors
    /// Xen does not answer, or the input cannot be read.
    pub fn run(&mut self, ends: Ends<'_>) -> Result<Ended, Error> {
        let (mut input, mut until) = (Input::Silent, None);
        loop {
            let ready = self.wait(&ends, input, until)?;
            if ready.stop {
                return Ok(Ended::Stopped);
            }
            if ready.tty_writable {
                self.pass_on();
            }
            if ready.tty_readable && self.copy_out(ends.output)? == Copied::Refused {
                return Ok(Ended::Output);
            }
            if (ready.line || self.tty.is_none()) && self.follow()? == Domain::Gone {
                while self.tty.is_some() && self.copy_out(ends.output)? == Copied::Some {}
                return Ok(Ended::Domain);
            }
            if ready.input {
                match self.copy_in(&ends)? {
                    Copied::Some => input = Input::Heard,
                    Copied::Refused => return Ok(Ended::Detached),
                    // One that never had anything to say, such as /dev/null, only listens.
                    Copied::Nothing if input == Input::Silent => input = Input::Over,
                    Copied::Nothing => (input, until) = (Input::Over, Some(Instant::now() + ANSWER_WAIT)),
                }
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return Ok(Ended::Input);
            }
        }
    }

    /// What can be done now. The input is not read while the domain has not taken what was.
    fn wait(&self, ends: &Ends<'_>, input: Input, until: Option<Instant>) -> Result<Ready, Error> {
        let none = PollFlags::empty();
        let reads = input != Input::Over && self.typed.is_empty() && self.tty.is_some();
        let tty = match (&self.tty, self.typed.is_empty()) {
            (None, _) => none,
            (_, true) => PollFlags::POLLIN,
            _ => PollFlags::POLLIN | PollFlags::POLLOUT,
        };
        let mut fds = vec![PollFd::new(ends.stop, PollFlags::POLLIN), PollFd::new(self.line.fd(), PollFlags::POLLIN)];
        let tty_at = self.tty.as_ref().map(|file| {
            fds.push(PollFd::new(file.as_fd(), tty));
            fds.len() - 1
        });
        // An escape is heard also while there is no terminal.
        let input_at = (reads || (input != Input::Over && ends.escape.is_some() && self.typed.is_empty())).then(|| {
            fds.push(PollFd::new(ends.input, PollFlags::POLLIN));
            fds.len() - 1
        });
        wait(&mut fds, until.map(|until| until.saturating_duration_since(Instant::now())))?;
        let seen = |at: Option<usize>| at.and_then(|at| fds[at].revents()).unwrap_or(none);
        let gone = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
        Ok(Ready {
            stop: !seen(Some(0)).is_empty(),
            line: !seen(Some(1)).is_empty(),
            tty_readable: seen(tty_at).intersects(PollFlags::POLLIN | gone),
            tty_writable: seen(tty_at).contains(PollFlags::POLLOUT),
            input: !seen(input_at).is_empty(),
        })
    }

    fn pass_on(&mut self) {
        let Some(tty) = &self.tty else { return };
        match write(tty, &self.typed) {
            Ok(taken) => drop(self.typed.drain(..taken)),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => self.lose(),
        }
    }

    fn lose(&mut self) {
        self.tty = None;
        self.typed.clear();
    }

    fn copy_out(&mut self, output: BorrowedFd<'_>) -> io::Result<Copied> {
        let Some(tty) = &mut self.tty else { return Ok(Copied::Nothing) };
        let mut bytes = [0; CHUNK];
        match tty.read(&mut bytes) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(Copied::Nothing)
            }
            // EIO: whoever held its other side has let go.
            Ok(0) | Err(_) => {
                self.lose();
                Ok(Copied::Nothing)
            }
            Ok(count) => match write_all(output, &bytes[..count]) {
                Ok(()) => Ok(Copied::Some),
                Err(Errno::EPIPE) => Ok(Copied::Refused),
                Err(errno) => Err(errno.into()),
            },
        }
    }

    /// What was typed goes to the domain, up to the escape.
    fn copy_in(&mut self, ends: &Ends<'_>) -> io::Result<Copied> {
        let mut bytes = [0; CHUNK];
        let count = match read(ends.input, &mut bytes) {
            Ok(0) | Err(Errno::EIO) => return Ok(Copied::Nothing),
            Ok(count) => count,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(Copied::Some),
            Err(errno) => return Err(errno.into()),
        };
        let typed = &bytes[..count];
        let end = ends.escape.and_then(|escape| typed.iter().position(|byte| *byte == escape));
        self.typed.extend_from_slice(&typed[..end.unwrap_or(count)]);
        self.pass_on();
        Ok(if end.is_some() { Copied::Refused } else { Copied::Some })
    }

    /// Takes another terminal where there is another, and tells whether there can still be one.
    fn follow(&mut self) -> Result<Domain, Error> {
        let seen = self.line.look()?;
        let is_new = std::mem::replace(&mut self.named, seen.named) != seen.named;
        if let Some(tty) = seen.tty.filter(|_| is_new).and_then(|path| open(&path).ok()) {
            self.tty = Some(tty);
        }
        // What has shut down says no more on a terminal that it has lost.
        let over = seen.domain == Domain::ShutDown && self.tty.is_none();
        Ok(if over { Domain::Gone } else { seen.domain })
    }
}

/// What can be done without waiting.
#[expect(clippy::struct_excessive_bools, reason = "one for each descriptor and direction")]
struct Ready {
    stop: bool,
    line: bool,
    tty_readable: bool,
    tty_writable: bool,
    input: bool,
}

/// What has come of the input.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Input {
    /// Nothing yet.
    Silent,
    /// Something.
    Heard,
    /// Its end.
    Over,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Copied {
    Some,
    Nothing,
    Refused,
}

fn wait(fds: &mut [PollFd<'_>], limit: Option<Duration>) -> Result<(), Error> {
    let limit = limit.map_or(PollTimeout::NONE, |limit| {
        PollTimeout::try_from(limit.as_millis().saturating_add(1)).unwrap_or(PollTimeout::MAX)
    });
    match poll(fds, limit) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// All of it, also to somebody slow who does not wait himself.
fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> nix::Result<()> {
    while !bytes.is_empty() {
        match write(to, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::EAGAIN) => drop(poll(&mut [PollFd::new(to, PollFlags::POLLOUT)], PollTimeout::NONE)?),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io::{PipeReader, PipeWriter, Write, pipe};
    use std::path::PathBuf;
    use std::rc::Rc;

    use nix::pty::{OpenptyResult, openpty};

    use super::*;
    use crate::console::ESCAPE;

    /// xenconsoled's side: a real terminal, and what xenstore would say.
    #[derive(Debug)]
    struct Pretended {
        seen: Rc<RefCell<Seen>>,
        events: PipeReader,
    }

    impl Line for Pretended {
        fn fd(&self) -> BorrowedFd<'_> {
            self.events.as_fd()
        }

        fn look(&mut self) -> Result<Seen, Error> {
            Ok(self.seen.borrow().clone())
        }
    }

    struct Bench {
        console: Console<Pretended>,
        seen: Rc<RefCell<Seen>>,
        master: File,
        slave: File,
        changed: PipeWriter,
        stop: (PipeReader, PipeWriter),
    }

    fn terminal() -> (File, File, PathBuf) {
        let OpenptyResult { master, slave } = openpty(None, None).expect("a terminal");
        let path = nix::unistd::ttyname(&slave).expect("a name");
        (File::from(master), File::from(slave), path)
    }

    fn bench() -> Bench {
        let (master, slave, path) = terminal();
        let seen = Rc::new(RefCell::new(Seen { tty: Some(path), named: 1, domain: Domain::Lives }));
        let (events, changed) = pipe().expect("pipe");
        let line = Pretended { seen: Rc::clone(&seen), events };
        let console = Console::attach(line, Instant::now()).expect("attached");
        Bench { console, seen, master, slave, changed, stop: pipe().expect("pipe") }
    }

    impl Bench {
        /// Runs with an input that says this and ends; what came out.
        fn run(&mut self, said: &[u8], escape: Option<u8>) -> (Ended, String) {
            let ((input, mut typed), (mut result, output)) = (pipe().expect("pipe"), pipe().expect("pipe"));
            typed.write_all(said).expect("typed");
            drop(typed);
            let ends = Ends { input: input.as_fd(), output: output.as_fd(), stop: self.stop.0.as_fd(), escape };
            let ended = self.console.run(ends).expect("run");
            drop(output);
            let mut text = String::new();
            result.read_to_string(&mut text).expect("text");
            (ended, text)
        }

        fn heard(&mut self) -> String {
            let mut bytes = [0; 100];
            let count = self.master.read(&mut bytes).expect("heard");
            String::from_utf8_lossy(&bytes[..count]).into_owned()
        }
    }

    #[test]
    fn what_is_said_is_heard_on_both_sides_and_an_end_is_an_end() {
        let mut bench = bench();
        bench.master.write_all(b"login: ").expect("said");
        assert_eq!(bench.run(b"root\n", None), (Ended::Input, "login: ".to_owned()));
        // Raw: no echo, no carriage return put in.
        assert_eq!(bench.heard(), "root\n");
    }

    #[test]
    fn the_escape_ends_it_where_a_person_types_and_nowhere_else() {
        let mut bench = bench();
        assert_eq!(bench.run(b"ls\x1dnot sent", Some(ESCAPE)).0, Ended::Detached);
        assert_eq!(bench.heard(), "ls");
        assert_eq!(bench.run(b"ls\x1d", None).0, Ended::Input);
        assert_eq!(bench.heard(), "ls\x1d");
    }

    #[test]
    fn an_input_that_never_says_anything_only_listens() {
        let mut bench = bench();
        bench.master.write_all(b"Linux").expect("said");
        bench.seen.borrow_mut().domain = Domain::Gone;
        bench.changed.write_all(b"x").expect("changed");
        assert_eq!(bench.run(b"", None), (Ended::Domain, "Linux".to_owned()));
    }

    #[test]
    fn a_terminal_that_is_lost_is_waited_for_and_another_is_followed() {
        let mut bench = bench();
        let (mut master, _slave, path) = terminal();
        *bench.seen.borrow_mut() = Seen { tty: Some(path), named: 2, domain: Domain::Lives };
        bench.changed.write_all(b"x").expect("changed");
        master.write_all(b"resumed").expect("said");
        assert_eq!(bench.run(b"y", None), (Ended::Input, "resumed".to_owned()));
    }

    #[test]
    fn a_domain_that_has_shut_down_ends_it_when_its_terminal_is_gone() {
        let mut bench = bench();
        bench.seen.borrow_mut().domain = Domain::ShutDown;
        bench.master.write_all(b"Power down").expect("said");
        let (closed, slave) = (std::mem::replace(&mut bench.master, File::open("/dev/null").unwrap()), &bench.slave);
        drop((closed, slave));
        let (ended, text) = bench.run(b"", None);
        assert_eq!(ended, Ended::Domain);
        assert!(text == "Power down" || text.is_empty(), "{text}");
    }

    #[test]
    fn a_wish_to_stop_and_an_output_that_nobody_reads_end_it() {
        let mut bench = bench();
        bench.stop.1.write_all(b"x").expect("stop");
        assert_eq!(bench.run(b"", None).0, Ended::Stopped);
        bench.stop = pipe().expect("pipe");
        bench.master.write_all(b"said").expect("said");
        let ((input, _typed), (result, output)) = (pipe().expect("pipe"), pipe().expect("pipe"));
        drop(result);
        let ends = Ends { input: input.as_fd(), output: output.as_fd(), stop: bench.stop.0.as_fd(), escape: None };
        assert_eq!(bench.console.run(ends).expect("run"), Ended::Output);
    }

    #[test]
    fn without_a_terminal_the_wait_has_an_end() {
        let (events, _changed) = pipe().expect("pipe");
        let seen = Rc::new(RefCell::new(Seen { tty: None, named: 0, domain: Domain::Lives }));
        let line = Pretended { seen: Rc::clone(&seen), events };
        let error = Console::attach(line, Instant::now() + Duration::from_millis(20)).expect_err("no terminal");
        assert!(error.to_string().contains("no such console"), "{error}");
    }
}
