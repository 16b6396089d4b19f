//! The source's daemon, which is asked when a connection is lost after READY. It says what it is told to say, true or not.

use std::collections::VecDeque;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bascule::journal::Stage;
use bascule::protocol::{Message, Status, Welcome};
use bascule::stream::Cancel;
use bascule::transport::{self, Channel};
use uuid::Uuid;

/// For a message of a session that lives.
const SOON: Duration = Duration::from_secs(5);

/// What it says to one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// The truth or a lie.
    Stage(Option<Stage>),
    /// An answer to another question.
    OtherMigration,
    /// No frame.
    Garbage,
    /// Nothing.
    Hangup,
}

pub(super) struct Daemon {
    pub(super) port: u16,
    orders: Arc<Mutex<Orders>>,
}

#[derive(Default)]
struct Orders {
    answers: VecDeque<Said>,
    cancel: Cancel,
}

impl Daemon {
    /// It serves until the process ends.
    pub(super) fn start() -> Daemon {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let orders: Arc<Mutex<Orders>> = Arc::default();
        let given = Arc::clone(&orders);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let next = given.lock().unwrap_or_else(PoisonError::into_inner).next();
                drop(answer(stream, next)); // an asker that has gone needs none
            }
        });
        Daemon { port, orders }
    }

    /// The answers to the next questions; after them it knows of no migration. The first question cancels the session that asks, for it
    /// would pause before the next one.
    pub(super) fn say(&self, answers: &[Said], cancel: &Cancel) {
        let orders = Orders { answers: answers.iter().copied().collect(), cancel: cancel.clone() };
        *self.orders.lock().unwrap_or_else(PoisonError::into_inner) = orders;
    }
}

impl Orders {
    fn next(&mut self) -> Said {
        self.cancel.cancel();
        self.answers.pop_front().unwrap_or(Said::Stage(None))
    }
}

fn answer(mut stream: TcpStream, said: Said) -> Result<(), transport::Error> {
    match said {
        Said::Hangup => return Ok(()),
        Said::Garbage => return Ok(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")?),
        Said::Stage(_) | Said::OtherMigration => {}
    }
    let channel = Channel::adopt(stream)?;
    let Message::Hello(hello) = channel.receive(SOON)? else { return Ok(()) };
    let welcome = Welcome { version: hello.newest, node: "node1".into(), program: hello.program };
    channel.send(welcome, SOON)?;
    let Message::Query(query) = channel.receive(SOON)? else { return Ok(()) };
    let status = match said {
        Said::Stage(stage) => Status { id: query.id, stage },
        _ => Status { id: Uuid::from_u128(!query.id.as_u128()), stage: Some(Stage::Go) },
    };
    channel.send(status, SOON)
}
