//! Who is at the other end of a relocation connection, and that nobody else reads it or writes on it: TLS 1.3, both ends authenticated.
//!
//! A host proves its identity with its own key, which the other one has pinned when they were paired (raw public keys, RFC 7250), or with a
//! certificate of an authority that both trust. Whoever is unknown is refused in the handshake, before a byte of our protocol is
//! read. Afterwards the kernel takes the session over where it can, so that libxl reads and writes the socket itself; else a relay
//! stands between. In clear only goes what both ends' configuration lets go in clear.
//!
//! The one cipher suite is ChaCha20-Poly1305: its keys may protect as many records as a connection can count (RFC 8446, 5.5), so
//! that no key update is needed, which the kernel could not follow. AES-GCM's would have to be changed after 2^24.5 records, some hundred gigabytes. No
//! tickets are sent and nothing is resumed: after the handshake no record is anything but data.

pub(crate) mod certificates;
pub(crate) mod expiry;
mod handshake;
mod identity;
mod kernel;
mod keys;
mod peers;
mod relay;
#[cfg(test)]
mod tests;

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring;
use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, Connection, ServerConfig};
use serde::Serialize;

pub use self::identity::{Fingerprint, Identity};
use self::keys::Accepts;
pub use self::peers::{Pin, Pins};
use crate::config::Security;
use crate::transport::wire::{self, Deadline};
use crate::transport::{self, Channel};

/// How a connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protection {
    /// TLS, by the kernel: libxl has the socket itself.
    KernelTls,
    /// TLS, by a thread of ours between libxl and the socket.
    RelayedTls,
    /// Not at all.
    Clear,
}

impl std::fmt::Display for Protection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Protection::KernelTls => "TLS 1.3, in the kernel",
            Protection::RelayedTls => "TLS 1.3, relayed",
            Protection::Clear => "in clear",
        })
    }
}

/// Why a connection is not used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of an identity, an authority or a peer cannot be used.
    #[error("{} cannot be used: {why}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The settings do not fit together.
    #[error("In [security] of the configuration, {0}")]
    Settings(String),
    /// The connection failed before both knew each other.
    #[error("The connection was not secured")]
    Connection(#[source] Box<transport::Error>),
    /// What the other side says is not TLS.
    #[error("What came is not TLS, and security.in-clear does not name this peer")]
    NotTls,
    /// The other side has a key that no peer of this host has.
    #[error("Key {0} is of no peer of this host: if it is one, bascule pair")]
    Stranger(Fingerprint),
    /// The other side does not know this host.
    #[error(
        "The other host does not know this one's key or certificate: bascule pair, or see its configuration's [security]"
    )]
    Unknown,
    /// The handshake failed in another way.
    #[error("TLS failed")]
    Tls(#[from] rustls::Error),
    /// The kernel took one direction of the session and not the other.
    #[error("The kernel does not take the session over: set security.kernel-tls = false")]
    Kernel(#[source] std::io::Error),
    /// The relay could not be started.
    #[error("The relay cannot be started")]
    Relay(#[source] std::io::Error),
}

impl From<transport::Error> for Error {
    fn from(error: transport::Error) -> Error {
        Error::Connection(Box::new(error))
    }
}

fn unusable(file: &Path, why: impl std::fmt::Display) -> Error {
    Error::File { file: file.to_owned(), why: why.to_string() }
}

/// What a connection is for, as both say it in the handshake (ALPN).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// The relocation protocol.
    Relocation,
    /// Pairing.
    Pairing,
}

impl Purpose {
    fn alpn(self) -> &'static [u8] {
        match self {
            Purpose::Relocation => b"bascule/1",
            Purpose::Pairing => b"bascule-pair/1",
        }
    }
}

/// What a connection to this host's daemon is for, now that its peer is known.
#[derive(Debug)]
pub enum Accepted {
    /// The relocation protocol, with a peer of this name.
    Relocation(Channel, String),
    /// Pairing, with whoever has this key.
    Pairing(Channel, Fingerprint),
}

/// Secures a connection that this host has made. `state_dir` is where its key and its peers are.
///
/// # Errors
/// All of [`Error`].
pub fn connect(security: &Security, state_dir: &Path, tcp: TcpStream, timeout: Duration) -> Result<Channel, Error> {
    let peer = tcp.peer_addr().map_err(transport::Error::Io)?;
    if security.in_clear.contains(peer.ip()) {
        tracing::warn!(%peer, "the connection is not encrypted: security.in-clear");
        return Ok(Channel::adopt(tcp)?);
    }
    let (mut config, accepts) = match &certificates(security)? {
        Some(files) => (certificates::client(files)?, None),
        None => {
            let accepts = Accepts::peers(state_dir)?;
            (keys::client(&Identity::load_or_make(state_dir)?, &accepts)?, Some(accepts))
        }
    };
    finish_client(&mut config, Purpose::Relocation);
    let connection = handshake::connect(config, &tcp, Deadline::after(timeout));
    let connection = connection.map_err(|error| known_reason(error, accepts.as_ref()))?;
    seal(security.kernel_tls, tcp, connection)
}

/// As [`connect`], to a host that this one is being paired with: `is_meant` says whether it is the one with the right key, which is returned.
///
/// # Errors
/// As for [`connect`].
pub fn connect_to_pair(
    state_dir: &Path,
    tcp: TcpStream,
    timeout: Duration,
    is_meant: impl Fn(&Fingerprint) -> bool + Send + Sync + 'static,
) -> Result<(Channel, Fingerprint), Error> {
    let accepts = Accepts::those(is_meant);
    let mut config = keys::client(&Identity::load_or_make(state_dir)?, &accepts)?;
    finish_client(&mut config, Purpose::Pairing);
    let connection = handshake::connect(config, &tcp, Deadline::after(timeout));
    let connection = connection.map_err(|error| known_reason(error, Some(&accepts)))?;
    let key = keys::of_peer(&connection)?;
    Ok((seal(false, tcp, connection)?, key))
}

/// Secures a connection that was made to this host. While `pairing`, a stranger may come to be paired.
///
/// # Errors
/// All of [`Error`].
pub fn accept(
    security: &Security,
    state_dir: &Path,
    tcp: TcpStream,
    timeout: Duration,
    pairing: bool,
) -> Result<Accepted, Error> {
    let deadline = Deadline::after(timeout);
    let peer = tcp.peer_addr().map_err(transport::Error::Io)?;
    if wire::peek(&tcp, deadline)? != handshake::FIRST_BYTE {
        return match security.in_clear.contains(peer.ip()) {
            true => {
                tracing::warn!("the connection is not encrypted: security.in-clear");
                Ok(Accepted::Relocation(Channel::adopt(tcp)?, peer.ip().to_canonical().to_string()))
            }
            false => Err(Error::NotTls),
        };
    }
    match certificates(security)? {
        Some(files) => {
            let mut config = certificates::server(&files)?;
            finish_server(&mut config, &[Purpose::Relocation]);
            let connection = handshake::accept(config, &tcp, deadline)?;
            let name = certificates::of_peer(&files, &connection)?;
            let channel = confirm(security.kernel_tls, tcp, connection, deadline)?;
            Ok(Accepted::Relocation(channel, name))
        }
        None => accept_key(security, state_dir, tcp, deadline, pairing),
    }
}

fn accept_key(
    security: &Security,
    state_dir: &Path,
    tcp: TcpStream,
    deadline: Deadline,
    pairing: bool,
) -> Result<Accepted, Error> {
    let peers = Accepts::peers(state_dir)?;
    let accepts = if pairing { Accepts::those(|_| true) } else { peers };
    let mut config = keys::server(&Identity::load_or_make(state_dir)?, &accepts)?;
    let purposes = [Purpose::Relocation, Purpose::Pairing];
    finish_server(&mut config, &purposes[..if pairing { 2 } else { 1 }]);
    let connection = handshake::accept(config, &tcp, deadline).map_err(|error| known_reason(error, Some(&accepts)))?;
    let key = keys::of_peer(&connection)?;
    if connection.alpn_protocol() == Some(Purpose::Pairing.alpn()) {
        return Ok(Accepted::Pairing(confirm(false, tcp, connection, deadline)?, key));
    }
    let pin = Pins::read(state_dir)?.find(&key).cloned().ok_or(Error::Stranger(key))?;
    Ok(Accepted::Relocation(confirm(security.kernel_tls, tcp, connection, deadline)?, pin.name))
}

/// Tells the client that it was accepted. A client that is done with the handshake does not know yet whether its own key was.
fn confirm(kernel_tls: bool, tcp: TcpStream, mut connection: Connection, deadline: Deadline) -> Result<Channel, Error> {
    handshake::confirm(&mut connection, &tcp, deadline)?;
    seal(kernel_tls, tcp, connection)
}

fn seal(kernel_tls: bool, tcp: TcpStream, connection: Connection) -> Result<Channel, Error> {
    let own = tcp.try_clone().map_err(transport::Error::Io)?;
    if kernel_tls && kernel::is_able() {
        kernel::take_over(&tcp, connection.dangerous_extract_secrets()?)?;
        return Ok(Channel::over(tcp, own.into(), Protection::KernelTls)?);
    }
    let relay = relay::start(own, connection).map_err(Error::Relay)?;
    Ok(Channel::over(tcp, relay, Protection::RelayedTls)?)
}

fn certificates(security: &Security) -> Result<Option<certificates::Files>, Error> {
    security.certificates().map_err(Error::Settings)
}

/// What rustls says of a key that was refused, in our words.
fn known_reason(error: Error, accepts: Option<&Accepts>) -> Error {
    use rustls::{AlertDescription as Alert, CertificateError, Error as Tls};
    match (&error, accepts.and_then(Accepts::refused)) {
        (Error::Tls(Tls::InvalidCertificate(CertificateError::ApplicationVerificationFailure)), Some(key)) => {
            Error::Stranger(key)
        }
        (
            Error::Tls(Tls::AlertReceived(
                Alert::AccessDenied
                | Alert::UnknownCA
                | Alert::BadCertificate
                | Alert::CertificateExpired
                | Alert::CertificateRevoked
                | Alert::UnsupportedCertificate
                // An authority of the same name signed it.
                | Alert::DecryptError
                | Alert::CertificateUnknown
                | Alert::NoApplicationProtocol,
            )),
            _,
        ) => Error::Unknown,
        _ => error,
    }
}

fn finish_client(config: &mut ClientConfig, purpose: Purpose) {
    config.alpn_protocols = vec![purpose.alpn().to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_secret_extraction = true;
}

fn finish_server(config: &mut ServerConfig, purposes: &[Purpose]) {
    config.alpn_protocols = purposes.iter().map(|purpose| purpose.alpn().to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.enable_secret_extraction = true;
}

/// The cryptography: one suite, see the top of this file.
fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    let suites = vec![ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256];
    Arc::new(rustls::crypto::CryptoProvider { cipher_suites: suites, ..ring::default_provider() })
}
