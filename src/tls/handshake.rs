//! The handshake, record by record: what follows its last record is left in the socket, for whoever reads that then.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};

use super::Error;
use crate::transport::wire::{self, Deadline};

/// The first byte that a TLS client sends: the type of a handshake record (RFC 8446, 5.1).
pub(super) const FIRST_BYTE: u8 = 22;
/// What the server says after the handshake, to a client that it has accepted.
const WELCOME: [u8; 1] = [1];

const HEADER_LEN: usize = 5;
/// The longest record, its header apart (RFC 8446, 5.2).
const RECORD_LEN_MAX: usize = (1 << 14) + 256;
/// A handshake of both ends has a few.
const RECORDS_MAX: usize = 64;

/// Ours is the client's end; done when the server has accepted it.
pub(super) fn connect(config: ClientConfig, tcp: &TcpStream, deadline: Deadline) -> Result<Connection, Error> {
    // No name is sent and none is checked: keys are pinned, and certificates are checked for the names of all peers.
    let nobody = ServerName::try_from("bascule.invalid").map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut client = Connection::Client(ClientConnection::new(Arc::new(config), nobody)?);
    run(&mut client, tcp, deadline)?;
    let mut welcome = [0; WELCOME.len()];
    for _ in 0..RECORDS_MAX {
        if client.reader().read(&mut welcome).is_ok_and(|n| n == welcome.len()) {
            return Ok(client);
        }
        feed(&mut client, tcp, deadline)?;
    }
    Err(too_long())
}

/// Ours is the server's end.
pub(super) fn accept(config: ServerConfig, tcp: &TcpStream, deadline: Deadline) -> Result<Connection, Error> {
    let mut server = Connection::Server(ServerConnection::new(Arc::new(config))?);
    run(&mut server, tcp, deadline)?;
    Ok(server)
}

/// Tells the client that it was accepted.
pub(super) fn confirm(server: &mut Connection, tcp: &TcpStream, deadline: Deadline) -> Result<(), Error> {
    server.writer().write_all(&WELCOME).map_err(crate::transport::Error::Io)?;
    flush(server, tcp, deadline)
}

fn run(connection: &mut Connection, tcp: &TcpStream, deadline: Deadline) -> Result<(), Error> {
    for _ in 0..RECORDS_MAX {
        flush(connection, tcp, deadline)?;
        if !connection.is_handshaking() {
            return Ok(());
        }
        feed(connection, tcp, deadline)?;
    }
    Err(too_long())
}

fn too_long() -> Error {
    rustls::Error::General(format!("no end of the handshake within {RECORDS_MAX} records")).into()
}

/// Reads one record. What is wrong with it is told to the other side.
fn feed(connection: &mut Connection, tcp: &TcpStream, deadline: Deadline) -> Result<(), Error> {
    let record = record(tcp, deadline)?;
    let mut left = &record[..];
    while !left.is_empty() {
        connection.read_tls(&mut left).map_err(crate::transport::Error::Io)?;
        if let Err(error) = connection.process_new_packets() {
            let _ = flush(connection, tcp, deadline);
            return Err(error.into());
        }
    }
    Ok(())
}

fn record(tcp: &TcpStream, deadline: Deadline) -> Result<Vec<u8>, Error> {
    let mut record = vec![0; HEADER_LEN];
    wire::read_exact(tcp, &mut record, deadline)?;
    let len = usize::from(u16::from_be_bytes([record[3], record[4]]));
    if !(20..=23).contains(&record[0]) || record[1] != 3 || len > RECORD_LEN_MAX {
        return Err(Error::NotTls);
    }
    record.resize(HEADER_LEN + len, 0);
    wire::read_exact(tcp, &mut record[HEADER_LEN..], deadline)?;
    Ok(record)
}

fn flush(connection: &mut Connection, tcp: &TcpStream, deadline: Deadline) -> Result<(), Error> {
    let mut bytes = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut bytes).map_err(crate::transport::Error::Io)?;
    }
    Ok(wire::write_all(tcp, &bytes, deadline)?)
}
