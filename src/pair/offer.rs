//! The door that `bascule pair` opens: a socket in the directory of open migrations, at which the daemon's workers present who came.
//! Without the process that listens there is no door, and strangers are refused in the handshake.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Code, keep};
use crate::stream::Cancel;
use crate::tls::{Identity, Pin};
use crate::toolstack::Error;

const SOCKET: &str = "pairing";
/// How often a wrong code may come.
const ATTEMPTS: usize = 3;
/// How long a worker may take to say who came.
const PRESENT_WAIT: Duration = Duration::from_secs(5);
/// The longest line on the socket, in bytes.
const LINE_LEN_MAX: u64 = 4096;
/// Between two looks for a visitor.
const INTERVAL: Duration = Duration::from_millis(100);

/// Who came, as the daemon's worker presents it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Visitor {
    /// What it has of the code.
    pub secret: String,
    /// Its node name.
    pub name: String,
    /// Where it came from.
    pub address: String,
    /// The key that it has proven to have.
    pub fingerprint: String,
}

#[derive(Serialize, Deserialize)]
struct Verdict {
    /// Why not, unless it is paired.
    refused: Option<String>,
}

/// The open door. It closes when this is dropped.
#[derive(Debug)]
pub struct Offer {
    listener: UnixListener,
    socket: PathBuf,
    code: Code,
}

impl Offer {
    /// Opens the door of this host, whose key is below `state_dir`.
    ///
    /// # Errors
    /// It is open already, or the socket or the key cannot be made.
    pub fn open(run_dir: &Path, state_dir: &Path) -> Result<Offer, Error> {
        let code = Code::new(&Identity::load_or_make(state_dir)?.fingerprint())?;
        fs::create_dir_all(run_dir)?;
        let socket = run_dir.join(SOCKET);
        match UnixStream::connect(&socket) {
            Ok(_) => return Err("This host is being paired already, by another bascule pair".into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Its process has died.
            Err(_) => fs::remove_file(&socket)?,
        }
        let listener = UnixListener::bind(&socket)?;
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Offer { listener, socket, code })
    }

    /// Whether a door is open.
    #[must_use]
    pub fn is_open(run_dir: &Path) -> bool {
        UnixStream::connect(run_dir.join(SOCKET)).is_ok()
    }

    /// The code to type at the other host.
    #[must_use]
    pub fn code(&self) -> &Code {
        &self.code
    }

    /// Waits for the other host, and keeps its key.
    ///
    /// # Errors
    /// Nobody came until `deadline`, too many came with a wrong code, or `cancel` was requested.
    pub fn wait(self, state_dir: &Path, deadline: Instant, cancel: &Cancel) -> Result<Pin, Error> {
        let mut wrong = 0;
        while wrong < ATTEMPTS {
            if cancel.requested() {
                return Err("Interrupted: this host is not being paired any more".into());
            }
            if Instant::now() > deadline {
                return Err(
                    "Nobody came with the code. Does bascule serve run here, and can the other host reach its port?"
                        .into(),
                );
            }
            match self.listener.accept() {
                Ok((stream, _)) => match self.judge(state_dir, stream) {
                    Ok(Some(pin)) => return Ok(pin),
                    Ok(None) => wrong += 1,
                    Err(error) => {
                        tracing::debug!(error = %crate::migrate::chain(error.as_ref()), "somebody only looked")
                    }
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(INTERVAL),
                Err(error) => return Err(error.into()),
            }
        }
        Err(format!("{ATTEMPTS} times somebody came with a wrong code: look into the daemon's log from where, and type bascule pair again").into())
    }

    /// `None` for a wrong code.
    fn judge(&self, state_dir: &Path, stream: UnixStream) -> Result<Option<Pin>, Error> {
        let visitor: Visitor = receive(&stream)?;
        if !self.code.has_secret(&visitor.secret) {
            send(&stream, &Verdict { refused: Some("The code is not the one that is shown here".into()) })?;
            return Ok(None);
        }
        let pin = keep(state_dir, visitor.name, visitor.address, visitor.fingerprint.parse()?)?;
        send(&stream, &Verdict { refused: None })?;
        Ok(Some(pin))
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.socket);
    }
}

/// Presents a visitor to whoever has opened the door.
pub(super) fn present(run_dir: &Path, visitor: &Visitor, timeout: Duration) -> Result<(), Error> {
    let stream = UnixStream::connect(run_dir.join(SOCKET)).map_err(|_| "This host is not being paired any more")?;
    stream.set_read_timeout(Some(timeout))?;
    send(&stream, visitor)?;
    match receive_line::<Verdict>(&stream)?.refused {
        None => Ok(()),
        Some(why) => Err(why.into()),
    }
}

fn receive<T: for<'de> Deserialize<'de>>(stream: &UnixStream) -> Result<T, Error> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PRESENT_WAIT))?;
    receive_line(stream)
}

fn receive_line<T: for<'de> Deserialize<'de>>(stream: &UnixStream) -> Result<T, Error> {
    let mut line = String::new();
    BufReader::new(stream.take(LINE_LEN_MAX)).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

fn send(mut stream: &UnixStream, what: &impl Serialize) -> Result<(), Error> {
    stream.set_write_timeout(Some(PRESENT_WAIT))?;
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    Ok(stream.write_all(&line)?)
}
