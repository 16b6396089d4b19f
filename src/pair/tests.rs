use std::net::TcpListener;
use std::thread;
use std::time::Instant;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::config::Security;
use crate::stream::Cancel;
use crate::tls::{Accepted, Identity};

const SOON: Duration = Duration::from_secs(60);

/// A host with its daemon, which answers one connection.
struct Host {
    state: TempDir,
    run: TempDir,
}

impl Host {
    fn new() -> Host {
        let [state, run] = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
        Host { state, run }
    }

    fn key(&self) -> Fingerprint {
        Identity::load_or_make(self.state.path()).expect("a key").fingerprint()
    }

    fn serve_one(&self, listener: &TcpListener) -> Result<(), Error> {
        let (tcp, _) = listener.accept()?;
        let pairing = Offer::is_open(self.run.path());
        match tls::accept(&Security::default(), self.state.path(), tcp, SOON, pairing)? {
            Accepted::Pairing(channel, key) => answer(self.run.path(), "node2", &channel, key, SOON),
            Accepted::Relocation(_, peer) => Err(format!("taken for {peer}").into()),
        }
    }

    fn peers(&self) -> Vec<String> {
        Pins::read(self.state.path())
            .expect("read")
            .iter()
            .map(|pin| format!("{} {}", pin.name, pin.fingerprint))
            .collect()
    }
}

/// One visit of `node1` with a code.
fn visit(source: &Host, destination: &Host, code: &Code) -> Result<Pin, Error> {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = listener.local_addr().expect("bound").port();
    thread::scope(|scope| {
        scope.spawn(|| drop(destination.serve_one(&listener)));
        join(source.state.path(), "node1", ("127.0.0.1", port), code, SOON)
    })
}

fn wait(host: &Host, offer: Offer) -> Result<Pin, Error> {
    offer.wait(host.state.path(), Instant::now() + SOON, &Cancel::default())
}

#[test]
fn the_code_makes_both_know_each_other_and_opens_nothing_twice() {
    let (source, destination) = (Host::new(), Host::new());
    let offer = Offer::open(destination.run.path(), destination.state.path()).expect("open");
    let code = offer.code().clone();
    let visitor = thread::scope(|scope| {
        let waiting = scope.spawn(|| wait(&destination, offer));
        let pin = visit(&source, &destination, &code).expect("paired");
        assert_eq!((pin.name.as_str(), pin.fingerprint), ("node2", destination.key()));
        waiting.join().expect("no panic").expect("paired")
    });
    assert_eq!(
        (visitor.name.as_str(), visitor.address.as_str(), visitor.fingerprint),
        ("node1", "127.0.0.1", source.key())
    );
    assert_eq!(source.peers(), [format!("node2 {}", destination.key())]);
    assert_eq!(destination.peers(), [format!("node1 {}", source.key())]);
    // The door is closed.
    let refused = visit(&Host::new(), &destination, &code).expect_err("closed").to_string();
    assert!(refused.contains("type bascule pair there"), "{refused}");
}

#[test]
fn three_wrong_codes_close_the_door() {
    let (stranger, destination) = (Host::new(), Host::new());
    let offer = Offer::open(destination.run.path(), destination.state.path()).expect("open");
    let wrong = Code::new(&destination.key()).expect("a code");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| wait(&destination, offer));
        for _ in 0..3 {
            let refused = visit(&stranger, &destination, &wrong).expect_err("refused").to_string();
            assert!(refused.contains("not the one that is shown here"), "{refused}");
        }
        let closed = waiting.join().expect("no panic").expect_err("closed").to_string();
        assert!(closed.starts_with("3 times"), "{closed}");
    });
    assert!(destination.peers().is_empty() && stranger.peers().is_empty());
    assert!(!Offer::is_open(destination.run.path()));
}

#[test]
fn a_host_that_has_not_shown_the_code_does_not_hear_the_secret() {
    let (source, meant, between) = (Host::new(), Host::new(), Host::new());
    let code = Code::new(&meant.key()).expect("a code");
    let offer = Offer::open(between.run.path(), between.state.path()).expect("open");
    let refused = visit(&source, &between, &code).expect_err("not the one").to_string();
    assert!(refused.contains(&between.key().to_string()), "{refused}");
    assert!(source.peers().is_empty());
    drop(offer);
}

#[test]
fn the_door_is_opened_once_and_after_a_crash_again() {
    let host = Host::new();
    let offer = Offer::open(host.run.path(), host.state.path()).expect("open");
    assert!(Offer::open(host.run.path(), host.state.path()).is_err());
    // A process that was killed leaves its socket.
    std::mem::forget(offer);
    let left = host.run.path().join("pairing");
    std::fs::remove_file(&left).expect("there");
    drop(std::os::unix::net::UnixListener::bind(&left).expect("bound"));
    assert!(!Offer::is_open(host.run.path()));
    Offer::open(host.run.path(), host.state.path()).expect("open");
}

#[test]
fn a_host_that_was_installed_anew_replaces_its_former_self() {
    let host = Host::new();
    for key in [1, 2] {
        keep(host.state.path(), "node2".into(), "node2".into(), Fingerprint([key; 32])).expect("kept");
    }
    assert_eq!(host.peers(), [format!("node2 {}", Fingerprint([2; 32]))]);
}

#[test]
fn what_people_type_is_understood() {
    let code = Code::new(&Fingerprint([0x5a; 32])).expect("a code");
    let text = code.to_string();
    assert_eq!((text.len(), text.matches('-').count()), (29, 5), "{text}");
    for typed in
        [text.to_lowercase(), text.replace('-', ""), text.replace('-', " "), text.replace('0', "o").replace('1', "l")]
    {
        assert!(typed.parse::<Code>() == Ok(code.clone()), "{typed}");
    }
    for wrong in ["", "1234", &text[1..], &format!("{text}0"), "U234-5678-9ABC-DEFG-HJKM-NPQR"] {
        assert!(wrong.parse::<Code>().is_err(), "{wrong}");
    }
}

#[test]
fn a_name_is_plain() {
    for name in ["", "a b", "node\n1", "\u{1b}[2J", "n".repeat(65).as_str(), "nöde"] {
        assert!(checked_name(name.to_owned()).is_err(), "{name:?}");
    }
}

proptest! {
    #[test]
    fn a_code_is_read_as_it_is_written(key: [u8; 32]) {
        let code = Code::new(&Fingerprint(key)).expect("a code");
        prop_assert!(code.to_string().parse::<Code>() == Ok(code));
    }
}
