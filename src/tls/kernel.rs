//! The session in the kernel (Documentation/networking/tls.rst): the socket is read and written as if it were in clear.
//!
//! The kernel gives EIO to a reader that meets a record that is not data. There is none but an alert: the other side's end.

use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::{io, mem};

use nix::libc::{TLS_1_3_VERSION, TLS_CIPHER_CHACHA20_POLY1305, tls_crypto_info, tls12_crypto_info_chacha20_poly1305};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{TcpTlsRx, TcpTlsTx, TcpUlp, TlsCryptoInfo};
use rustls::{ConnectionTrafficSecrets, ExtractedSecrets};

use super::Error;
use crate::transport;

/// Whether this kernel can, found out once on a connection of this process with itself. It loads the module `tls`.
pub(super) fn is_able() -> bool {
    static ABLE: OnceLock<bool> = OnceLock::new();
    *ABLE.get_or_init(|| match probe() {
        Ok(()) => true,
        Err(error) => {
            tracing::info!(%error, "the kernel does no TLS: the module tls is not there, or lacks ChaCha20-Poly1305");
            false
        }
    })
}

fn probe() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let tcp = TcpStream::connect(listener.local_addr()?)?;
    let zero = info(0, &[0; 32], &[0; 12]).ok_or(io::ErrorKind::InvalidData)?;
    setsockopt(&tcp, TcpUlp::default(), b"tls")?;
    setsockopt(&tcp, TcpTlsTx, &zero)?;
    Ok(setsockopt(&tcp, TcpTlsRx, &zero)?)
}

/// Gives both directions to the kernel.
pub(super) fn take_over(tcp: &TcpStream, secrets: ExtractedSecrets) -> Result<(), Error> {
    let (sent, received) = (of(secrets.tx)?, of(secrets.rx)?);
    let socket = tcp.as_fd();
    setsockopt(&socket, TcpUlp::default(), b"tls").map_err(refused)?;
    setsockopt(&socket, TcpTlsTx, &sent).map_err(refused)?;
    setsockopt(&socket, TcpTlsRx, &received).map_err(refused)
}

/// The kernel takes established connections only: one whose other end has given up meanwhile is not its fault.
fn refused(errno: nix::Error) -> Error {
    match errno {
        nix::Error::ENOTCONN => transport::Error::Closed.into(),
        errno => Error::Kernel(errno.into()),
    }
}

fn of((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Result<TlsCryptoInfo, Error> {
    let info = match &secrets {
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => info(sequence, key.as_ref(), iv.as_ref()),
        _ => None,
    };
    info.ok_or_else(|| Error::Kernel(io::ErrorKind::Unsupported.into()))
}

/// `None` unless key and iv have the cipher's lengths.
fn info(sequence: u64, key: &[u8], iv: &[u8]) -> Option<TlsCryptoInfo> {
    Some(TlsCryptoInfo::Chacha20Poly1305(tls12_crypto_info_chacha20_poly1305 {
        info: tls_crypto_info { version: TLS_1_3_VERSION, cipher_type: TLS_CIPHER_CHACHA20_POLY1305 },
        iv: iv.try_into().ok()?,
        key: key.try_into().ok()?,
        salt: [0; mem::size_of::<[u8; 0]>()],
        rec_seq: sequence.to_be_bytes(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_is_gone_is_not_taken_for_a_kernel_that_cannot() {
        assert!(
            matches!(refused(nix::Error::ENOTCONN), Error::Connection(error) if matches!(*error, transport::Error::Closed))
        );
        assert!(refused(nix::Error::ENOENT).to_string().contains("kernel-tls"));
    }
}
