//! The server's end of the handshake: whatever a client says, it is not let in without a key, and hears an alert at most.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::LazyLock;
use std::time::Duration;

use bascule::config::Security;
use bascule::tls;
use tempfile::TempDir;

static DOOR: LazyLock<TcpListener> = LazyLock::new(|| TcpListener::bind("127.0.0.1:0").expect("a port"));
static STATE: LazyLock<TempDir> = LazyLock::new(|| crate::memory_dir().expect("a directory"));

/// All that comes is there when the handshake begins.
const BOUND: Duration = Duration::from_secs(30);
/// The records of a server's first flight, which who speaks TLS may hear, and an alert, in bytes.
const ANSWER_LEN_MAX: usize = 4096;

/// The first bit says whether this host is being paired.
pub(crate) fn run(bytes: &[u8]) {
    let Some((first, said)) = bytes.split_first() else { return };
    let mut client = TcpStream::connect(DOOR.local_addr().expect("bound")).expect("connects");
    let (server, _) = DOOR.accept().expect("accepts");
    client.write_all(said).expect("the kernel holds it all");
    client.shutdown(Shutdown::Write).expect("connected");
    let security = Security { kernel_tls: false, ..Security::default() };
    let accepted = tls::accept(&security, STATE.path(), server, BOUND, first & 1 == 1);
    assert!(accepted.is_err(), "{accepted:?}");
    let mut heard = Vec::new();
    // What was not read is answered by a reset.
    let _ = client.read_to_end(&mut heard);
    assert!(heard.len() <= ANSWER_LEN_MAX, "{} bytes are told", heard.len());
    assert!(heard.is_empty() || said.first() == Some(&22), "{heard:?}");
}
