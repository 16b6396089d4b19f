//! Names of peers whose address alone does not decide.
//!
//! A lookup asks servers that may be slow, or in the hands of who connects, and the system's resolver cannot be called off. So
//! each runs on a short-lived thread of its own, only when no address or network of the list matched, a few at a time in all and for
//! one host, those included that the resolver does not give back; the accept loop looks at what has come, and refuses what has not come in [`LOOKUP_WAIT`]. Nothing is read from the
//! connection meanwhile: a silent peer changes nothing.

use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::limits::network;

/// How long a connection waits for its peer's name.
pub(super) const LOOKUP_WAIT: Duration = Duration::from_secs(5);
/// The most lookups at one time; threads that the resolver does not give back count.
const LOOKUPS_MAX: usize = 32;
/// The same of one host, lest one peer with a slow server shuts out the others.
const LOOKUPS_OF_HOST_MAX: usize = 4;
/// The stack of a lookup's thread, in bytes: the resolver keeps its answers there.
const STACK_LEN: usize = 512 << 10;

/// Finds the name of an address.
pub(super) type Lookup = fn(IpAddr) -> Option<String>;

/// The connections that wait for their peer's name.
pub(super) struct Names {
    lookup: Lookup,
    waiting: Vec<Waiting>,
    /// For whom a thread looks up; the thread holds it.
    threads: Vec<Weak<IpAddr>>,
}

struct Waiting {
    stream: TcpStream,
    peer: SocketAddr,
    name: Receiver<Option<String>>,
    deadline: Instant,
}

/// A connection that need not wait any longer, and its peer's name, or why there is none.
pub(super) type Named = (TcpStream, SocketAddr, Result<String, &'static str>);

impl Names {
    pub(super) fn new(lookup: Lookup) -> Names {
        Names { lookup, waiting: Vec::new(), threads: Vec::new() }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Begins to look up; a connection for which there is no room is closed, and why is told.
    pub(super) fn ask(&mut self, stream: TcpStream, peer: SocketAddr) -> Result<(), String> {
        let host = Arc::new(network(peer.ip()));
        self.threads.retain(|thread| thread.strong_count() > 0);
        let same = self.threads.iter().filter(|thread| thread.upgrade().is_some_and(|of| of == host)).count();
        if same >= LOOKUPS_OF_HOST_MAX {
            return Err("of its host".into());
        }
        if self.threads.len() >= LOOKUPS_MAX {
            return Err("in all".into());
        }
        let (sender, name) = sync_channel(1);
        let (lookup, thread) = (self.lookup, Arc::downgrade(&host));
        let builder = std::thread::Builder::new().name("name".into()).stack_size(STACK_LEN);
        let spawned = builder.spawn(move || {
            let _ = sender.send(lookup(peer.ip().to_canonical()));
            drop(host);
        });
        spawned.map_err(|error| error.to_string())?;
        self.threads.push(thread);
        self.waiting.push(Waiting { stream, peer, name, deadline: Instant::now() + LOOKUP_WAIT });
        Ok(())
    }

    /// The connections whose name has come, or will not.
    pub(super) fn settled(&mut self) -> Vec<Named> {
        let (mut settled, mut waiting) = (Vec::new(), Vec::new());
        for one in self.waiting.drain(..) {
            match one.name.try_recv() {
                Ok(Some(name)) => settled.push((one.stream, one.peer, Ok(name))),
                Err(TryRecvError::Empty) if Instant::now() < one.deadline => waiting.push(one),
                Err(TryRecvError::Empty) => settled.push((one.stream, one.peer, Err("its name was not found in time"))),
                Ok(None) | Err(TryRecvError::Disconnected) => {
                    settled.push((one.stream, one.peer, Err("it has no name that resolves to its address")));
                }
            }
        }
        self.waiting = waiting;
        settled
    }
}

/// The name to which an address resolves, if that name resolves to the address: whoever owns an address may give it any name.
pub(super) fn system(peer: IpAddr) -> Option<String> {
    let (name, _) = dns_lookup::getnameinfo(&SocketAddr::new(peer, 0), libc::NI_NAMEREQD).ok()?;
    let mut forward = (name.as_str(), 0).to_socket_addrs().ok()?;
    forward.any(|address| address.ip().to_canonical() == peer).then_some(name)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn connection() -> (TcpStream, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let _client = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        listener.accept().expect("a connection")
    }

    fn wait(names: &mut Names) -> Vec<Named> {
        let deadline = Instant::now() + Duration::from_secs(4);
        loop {
            let settled = names.settled();
            if !settled.is_empty() || Instant::now() > deadline {
                return settled;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_name_comes_back_with_its_connection() {
        let mut names = Names::new(|_| Some("node2.example.org".into()));
        let (stream, peer) = connection();
        names.ask(stream, peer).expect("room");
        let settled = wait(&mut names);
        assert!(matches!(&settled[..], [(_, of, Ok(name))] if *of == peer && name == "node2.example.org"));
        assert!(names.is_idle());
    }

    #[test]
    fn an_address_without_a_name_is_told_so() {
        let mut names = Names::new(|_| None);
        let (stream, peer) = connection();
        names.ask(stream, peer).expect("room");
        assert!(matches!(&wait(&mut names)[..], [(_, _, Err(_))]));
    }

    #[test]
    fn a_slow_server_holds_a_few_threads_and_nobody_else() {
        let mut names = Names::new(|_| {
            std::thread::sleep(Duration::from_millis(1500));
            None
        });
        let asked = (0..LOOKUPS_OF_HOST_MAX + 3).filter(|_| ask(&mut names)).count();
        assert_eq!((asked, names.waiting.len()), (LOOKUPS_OF_HOST_MAX, LOOKUPS_OF_HOST_MAX));
        names.waiting.iter_mut().for_each(|waiting| waiting.deadline = Instant::now());
        let late = names.settled();
        assert!(late.len() == LOOKUPS_OF_HOST_MAX && late.iter().all(|(_, _, name)| name.is_err()));
        assert!(!ask(&mut names), "the threads are still with the resolver");
    }

    fn ask(names: &mut Names) -> bool {
        let (stream, peer) = connection();
        names.ask(stream, peer).is_ok()
    }
}
