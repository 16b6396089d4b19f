use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread;

use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
};
use tempfile::TempDir;

use super::*;
use crate::daemon::Nets;
use crate::protocol::{Go, Message, Stream};

const SOON: Duration = Duration::from_secs(60);

/// A host: its state directory and its settings. Without the kernel's TLS, which the machine that runs this may lack; the lab has it.
struct Host {
    dir: TempDir,
    security: Security,
}

impl Host {
    fn new() -> Host {
        let security = Security { kernel_tls: false, ..Security::default() };
        Host { dir: tempfile::tempdir().expect("a directory"), security }
    }

    fn in_clear() -> Host {
        let mut host = Host::new();
        host.security.in_clear = Nets(vec!["127.0.0.0/8".parse().expect("a network")]);
        host
    }

    fn key(&self) -> Fingerprint {
        Identity::load_or_make(self.dir.path()).expect("a key").fingerprint()
    }

    fn knows(&self, other: &Host, name: &str) {
        let pin = Pin {
            name: name.into(),
            address: "127.0.0.1".into(),
            fingerprint: other.key(),
            paired_at: jiff::Timestamp::now(),
        };
        pin.keep(self.dir.path()).expect("kept");
    }

    fn connect(&self, tcp: TcpStream) -> Result<Channel, Error> {
        connect(&self.security, self.dir.path(), tcp, SOON)
    }

    fn accept(&self, tcp: TcpStream) -> Result<Accepted, Error> {
        accept(&self.security, self.dir.path(), tcp, SOON, false)
    }
}

fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
    (client, listener.accept().expect("accepts").0)
}

fn meet(source: &Host, destination: &Host) -> (Result<Channel, Error>, Result<Accepted, Error>) {
    let (client, server) = tcp();
    thread::scope(|scope| {
        let accepting = scope.spawn(|| destination.accept(server));
        let connected = source.connect(client);
        (connected, accepting.join().expect("no panic"))
    })
}

fn paired() -> (Host, Host) {
    let (source, destination) = (Host::new(), Host::new());
    source.knows(&destination, "node2");
    destination.knows(&source, "node1");
    (source, destination)
}

fn relocation(accepted: Result<Accepted, Error>) -> (Channel, String) {
    match accepted.expect("accepted") {
        Accepted::Relocation(channel, peer) => (channel, peer),
        other => panic!("{other:?}"),
    }
}

#[test]
fn hosts_that_know_each_other_talk_and_the_memory_stream_goes_between_frames() {
    let (source, destination) = paired();
    let (connected, accepted) = meet(&source, &destination);
    let (channel, (other, peer)) = (connected.expect("connected"), relocation(accepted));
    assert_eq!(
        (peer.as_str(), channel.protection(), other.protection()),
        ("node1", Protection::RelayedTls, Protection::RelayedTls)
    );
    let memory: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    thread::scope(|scope| {
        scope.spawn(|| {
            channel.send(Stream {}, SOON).expect("sent");
            wire::write_all(&channel, &memory, Deadline::after(SOON)).expect("written");
            channel.send(Go {}, SOON).expect("sent");
            channel.finish(SOON);
        });
        assert_eq!(other.receive(SOON).expect("a frame"), Message::from(Stream {}));
        let mut read = vec![0; memory.len()];
        wire::read_exact(&other, &mut read, Deadline::after(SOON)).expect("the stream");
        assert!(read == memory);
        assert_eq!(other.receive(SOON).expect("a frame"), Message::from(Go {}));
        assert!(matches!(other.receive(SOON), Err(transport::Error::Closed)));
        other.finish(SOON);
    });
}

#[test]
fn what_was_sent_before_a_process_ended_arrives() {
    let (source, destination) = paired();
    let (connected, accepted) = meet(&source, &destination);
    let (channel, (other, _)) = (connected.expect("connected"), relocation(accepted));
    other.send(Go {}, SOON).expect("sent");
    other.finish(Duration::from_millis(1));
    drop(other);
    assert_eq!(channel.receive(SOON).expect("a frame"), Message::from(Go {}));
    assert!(matches!(channel.receive(SOON), Err(transport::Error::Closed)));
}

#[test]
fn each_end_refuses_a_stranger_and_both_say_why() {
    let (source, destination) = paired();
    let stranger = Host::new();
    stranger.knows(&destination, "node2");
    let (connected, accepted) = meet(&stranger, &destination);
    assert!(matches!(connected, Err(Error::Unknown)), "{connected:?}");
    assert!(matches!(accepted, Err(Error::Stranger(key)) if key == stranger.key()), "{accepted:?}");

    stranger.knows(&source, "node1");
    let (connected, accepted) = meet(&source, &stranger);
    assert!(matches!(connected, Err(Error::Stranger(key)) if key == stranger.key()), "{connected:?}");
    assert!(accepted.is_err(), "{accepted:?}");
}

#[test]
fn a_peer_that_was_forgotten_is_a_stranger() {
    let (source, destination) = paired();
    Pins::read(destination.dir.path())
        .expect("read")
        .find(&source.key())
        .expect("known")
        .forget(destination.dir.path())
        .expect("forgotten");
    assert!(matches!(meet(&source, &destination), (Err(Error::Unknown), Err(Error::Stranger(_)))));
}

#[test]
fn in_clear_goes_only_what_both_let() {
    let (open, closed) = (Host::in_clear(), Host::new());
    let (connected, accepted) = {
        let (client, server) = tcp();
        let channel = open.connect(client).expect("connected");
        channel.send(Go {}, SOON).expect("sent");
        (channel, open.accept(server))
    };
    assert_eq!(connected.protection(), Protection::Clear);
    let (channel, peer) = relocation(accepted);
    assert_eq!((channel.receive(SOON).expect("a frame"), peer.as_str()), (Go {}.into(), "127.0.0.1"));

    let (client, server) = tcp();
    open.connect(client).expect("connected").send(Go {}, SOON).expect("sent");
    assert!(matches!(closed.accept(server), Err(Error::NotTls)));
}

#[test]
fn garbage_silence_and_the_end_are_refused_in_time() {
    let destination = Host::new();
    let accept =
        |server| accept(&destination.security, destination.dir.path(), server, Duration::from_millis(200), false);
    let (mut client, server) = tcp();
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("written");
    assert!(matches!(accept(server), Err(Error::NotTls)));
    let (_silent, server) = tcp();
    assert!(matches!(accept(server), Err(Error::Connection(_))));
    let (client, server) = tcp();
    client.shutdown(Shutdown::Write).expect("shut");
    assert!(matches!(accept(server), Err(Error::Connection(_))));
    // A handshake record that never ends, one byte at a time.
    let (mut client, server) = tcp();
    client.write_all(&[22, 3, 1, 0x40, 0]).expect("written");
    let slow = thread::spawn(move || {
        while client.write_all(&[1]).is_ok() {
            thread::sleep(Duration::from_millis(20))
        }
    });
    assert!(matches!(accept(server), Err(Error::Connection(_))));
    slow.join().expect("no panic");
}

#[test]
fn a_client_of_an_older_tls_is_refused() {
    let destination = Host::new();
    let (mut client, server) = tcp();
    // TLS 1.2: one suite, no extensions (RFC 5246, 7.4.1.2).
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x2f, 1, 0]);
    let len = u8::try_from(hello.len()).expect("short");
    let mut record = vec![22, 3, 1, 0, len + 4, 1, 0, 0, len];
    record.extend(hello);
    client.write_all(&record).expect("written");
    assert!(matches!(destination.accept(server), Err(Error::Tls(_))));
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).expect("an alert");
    // An alert of two bytes, and nothing else.
    assert_eq!((answer.first(), answer.len()), (Some(&21), 7), "{answer:?}");
}

#[test]
fn a_recorded_connection_is_worth_nothing() {
    let (source, destination) = paired();
    let (client, through) = tcp();
    let (back, server) = tcp();
    let recorded = thread::scope(|scope| {
        let accepting = scope.spawn(|| relocation(destination.accept(server)));
        let (mut up_in, mut up_out) = (through.try_clone().expect("cloned"), back.try_clone().expect("cloned"));
        let recording = scope.spawn(move || {
            let (mut all, mut chunk) = (Vec::new(), [0; 4096]);
            while let Ok(n @ 1..) = up_in.read(&mut chunk) {
                all.extend(&chunk[..n]);
                up_out.write_all(&chunk[..n]).expect("written");
            }
            let _ = up_out.shutdown(Shutdown::Write);
            all
        });
        let (mut down_in, mut down_out) = (back.try_clone().expect("cloned"), through.try_clone().expect("cloned"));
        scope.spawn(move || {
            let _ = std::io::copy(&mut down_in, &mut down_out);
            let _ = down_out.shutdown(Shutdown::Write);
        });
        let channel = source.connect(client).expect("connected");
        channel.send(Go {}, SOON).expect("sent");
        let (other, _) = accepting.join().expect("no panic");
        assert_eq!(other.receive(SOON).expect("a frame"), Go {}.into());
        drop(other);
        channel.finish(SOON);
        recording.join().expect("no panic")
    });
    let (mut again, server) = tcp();
    again.write_all(&recorded).expect("written");
    again.shutdown(Shutdown::Write).expect("shut");
    let replayed = destination.accept(server);
    assert!(matches!(replayed, Err(Error::Tls(_) | Error::Connection(_))), "{replayed:?}");
}

#[test]
fn a_key_is_made_once_and_nobody_else_may_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let host = Host::new();
    let keys: Vec<Fingerprint> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| host.key())).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    assert_eq!(std::fs::read_dir(host.dir.path()).expect("read").count(), 1);
    let file = host.dir.path().join("identity.key");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).expect("set");
    let refused = Identity::load_or_make(host.dir.path()).expect_err("others could read it").to_string();
    assert!(refused.contains("640"), "{refused}");
    std::fs::write(&file, b"no key").expect("written");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("set");
    assert!(matches!(Identity::load_or_make(host.dir.path()), Err(Error::File { .. })));
}

#[test]
fn a_damaged_peer_is_an_error_and_no_peer_is_lost_silently() {
    let (source, _) = paired();
    std::fs::write(source.dir.path().join("peers/x.json"), b"{").expect("written");
    assert!(matches!(Pins::read(source.dir.path()), Err(Error::File { .. })));
}

/// An authority and what it has signed.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Authority { issuer: CertifiedIssuer::self_signed(params, key).expect("signed") }
    }

    /// A host with a certificate for `name` until the year `until`, that trusts this authority and `names`.
    fn host(&self, name: &str, until: i32, names: &[&str]) -> Host {
        let mut host = Host::new();
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        params.not_after = date_time_ymd(until, 1, 1);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let put = |file: &str, text: String| -> Option<PathBuf> {
            let path = host.dir.path().join(file);
            std::fs::write(&path, text).expect("written");
            Some(path)
        };
        let files = [
            put("ca.pem", self.issuer.pem()),
            put("host.pem", certificate.pem()),
            put("host.key", key.serialize_pem()),
        ];
        let [authority, certificate, key] = files;
        let names = names.iter().map(|&name| name.to_owned()).collect();
        host.security = Security { authority, certificate, key, names, ..host.security };
        host
    }
}

#[test]
fn certificates_of_the_authority_and_for_the_names_are_accepted_and_no_others() {
    let (ours, other) = (Authority::new(), Authority::new());
    let names = ["node1.example.org", "10.99.0.2"];
    let destination = ours.host("10.99.0.2", 4000, &names);
    let (connected, accepted) = meet(&ours.host("node1.example.org", 4000, &names), &destination);
    assert_eq!(relocation(accepted).1, "node1.example.org");
    connected.expect("connected");

    let refused = [
        ("expired", ours.host("node1.example.org", 2001, &names)),
        ("another authority's", other.host("node1.example.org", 4000, &names)),
        ("another name's", ours.host("web.example.org", 4000, &names)),
        ("a key alone", paired().0),
    ];
    for &(what, ref source) in &refused {
        let (connected, accepted) = meet(source, &destination);
        assert!(accepted.is_err(), "{what}: {accepted:?}");
        // Who would have taken the server hears that it was not taken itself.
        let took = matches!(what, "expired" | "another name's");
        assert!(matches!(connected, Err(Error::Unknown)) || !took && connected.is_err(), "{what}: {connected:?}");
    }
    for (what, server) in &refused[..3] {
        let source = ours.host("node1.example.org", 4000, &names);
        let (connected, _) = meet(&source, server);
        assert!(connected.is_err(), "{what}: {connected:?}");
    }
}

#[test]
fn half_of_an_authority_is_an_error() {
    let mut host = Authority::new().host("node1.example.org", 4000, &["node1.example.org"]);
    host.security.names.clear();
    let (_client, server) = tcp();
    assert!(host.security.certificates().is_err());
    assert!(matches!(host.connect(server), Err(Error::Settings(_))));
}

proptest! {
    #[test]
    fn no_bytes_make_the_handshake_panic(mut bytes: Vec<u8>, as_record: bool) {
        let destination = Host::new();
        let (mut client, server) = tcp();
        if as_record {
            let len = u16::try_from(bytes.len()).expect("short").to_be_bytes();
            bytes.splice(0..0, [22, 3, 1, len[0], len[1]]);
        }
        client.write_all(&bytes).expect("written");
        client.shutdown(Shutdown::Write).expect("shut");
        prop_assert!(destination.accept(server).is_err());
    }

    #[test]
    fn a_fingerprint_is_read_as_it_is_written(bytes: [u8; 32]) {
        prop_assert_eq!(Fingerprint(bytes).to_string().parse(), Ok(Fingerprint(bytes)));
    }
}
