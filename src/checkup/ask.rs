//! The question to the peer: a connection of its own, made as a migration makes it. What comes back is not believed before it was looked
//! at: the frame is bounded by the protocol, the number of things in it by [`Facts`], and what is shown has no control characters.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::facts::{Facts, clock_us};
use crate::host::Caller;
use crate::migrate::chain;
use crate::peer;
use crate::protocol::{self, Examine, Message, Told, Welcome};
use crate::tls::Protection;
use crate::transport;

/// What became of the question.
#[derive(Debug)]
pub enum Answer {
    /// The peer has told.
    Met(Box<Meeting>),
    /// Its daemon does not know the question.
    Older(Welcome),
    /// It did not answer, or refused, and why.
    Silent(String),
    /// What it answered makes no sense, and why.
    Nonsense(String),
}

/// What was learnt from a peer that answers.
#[derive(Clone, Debug)]
pub struct Meeting {
    /// What it told of itself.
    pub theirs: Facts,
    /// This host's end of the connection.
    pub local: IpAddr,
    /// How the connection was protected.
    pub protection: Protection,
    /// How long connecting and proving who is who took.
    pub connect: Duration,
    /// Its clock less ours.
    pub clock: Clock,
}

/// A difference of two clocks, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Positive where the peer's is ahead.
    pub offset_us: i64,
    /// By how much that may be wrong: half the time that the messages were on their way.
    pub uncertainty_us: i64,
}

/// Asks; `connect` bounds connecting and proving, `answer` each message.
#[must_use]
pub fn ask(caller: Caller<'_>, address: (&str, u16), connect: Duration, answer: Duration) -> Answer {
    let began = Instant::now();
    let (channel, welcome) = match peer::call(caller, address, connect, answer) {
        Ok(called) => called,
        Err(error) => return Answer::Silent(chain(error.as_ref())),
    };
    let (connect, sent_us) = (began.elapsed(), clock_us());
    let heard = channel.send(Examine {}, answer).and_then(|()| channel.receive(answer));
    let heard_us = clock_us();
    match (heard, channel.local()) {
        (Ok(Message::Told(told)), Ok(local)) => match told.facts.oddity() {
            Some(odd) => Answer::Nonsense(format!("It tells of {odd}")),
            None => Answer::Met(Box::new(Meeting {
                clock: Clock::of(sent_us, &told, heard_us),
                theirs: *told.facts,
                local: local.ip().to_canonical(),
                protection: channel.protection(),
                connect,
            })),
        },
        (Ok(Message::Failed(failed)), _) if is_unknown(&failed.reason) => Answer::Older(welcome),
        (Ok(other), _) => Answer::Silent(chain(peer::refusal(other, "Told").as_ref())),
        (Err(transport::Error::Protocol(error)), _) => Answer::Nonsense(chain(&error)),
        (Err(error), _) => Answer::Silent(chain(&error)),
    }
}

/// Whether a daemon means by this that it does not know the question.
fn is_unknown(reason: &str) -> bool {
    let kind = Message::from(Examine {}).kind();
    reason.contains(&protocol::Error::UnknownKind(kind).to_string())
}

impl Clock {
    /// As NTP reckons (RFC 5905, 8): what the peer took to look counts for nothing. In 128 bits, for the peer may say any number.
    fn of(sent_us: i64, told: &Told, heard_us: i64) -> Clock {
        let [sent, asked, answered, heard] = [sent_us, told.asked_us, told.answered_us, heard_us].map(i128::from);
        let offset = ((asked - sent) + (answered - heard)) / 2;
        let uncertainty = ((heard - sent) - (answered - asked)).abs() / 2;
        let bounded = |us: i128| i64::try_from(us).unwrap_or(if us < 0 { i64::MIN } else { i64::MAX });
        Clock { offset_us: bounded(offset), uncertainty_us: bounded(uncertainty) }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::config::Security;
    use crate::daemon::Nets;
    use crate::protocol::Failed;
    use crate::transport::Channel;
    use crate::transport::wire::{self, Deadline};

    const SOON: Duration = Duration::from_secs(20);

    fn clock(asked_us: i64, answered_us: i64) -> Clock {
        let facts = Facts::look("node2", Err(String::new()), Err(String::new()), [127, 0, 0, 1].into());
        Clock::of(1_000_000, &Told { asked_us, answered_us, facts: Box::new(facts) }, 5_000_000)
    }

    /// What is made of a daemon that answers the question like this, in clear.
    fn asked(answer: impl FnOnce(&Channel) + Send) -> Answer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let port = listener.local_addr().expect("bound").port();
        let dir = tempfile::tempdir().expect("a directory");
        let security = Security { in_clear: Nets(vec!["127.0.0.1/32".parse().expect("a net")]), ..Security::default() };
        let caller = Caller { node: "node1", state_dir: dir.path(), security: &security };
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let (accepted, _) = listener.accept().expect("accepts");
                let channel = Channel::adopt(accepted).expect("adopts");
                channel.receive(SOON).expect("HELLO");
                let welcome = Welcome { version: 1, node: "node2".into(), program: "bascule 0.0.1".into() };
                channel.send(welcome, SOON).expect("sent");
                assert_eq!(channel.receive(SOON).expect("the question"), Examine {}.into());
                answer(&channel);
                channel.finish(SOON);
            });
            ask(caller, ("127.0.0.1", port), SOON, SOON)
        })
    }

    #[test]
    fn whatever_a_peer_answers_is_understood_or_a_finding() {
        let failed = |reason: &'static str| Failed { step: "reading the offer".into(), reason: reason.into() };
        let older = asked(|channel| channel.send(failed("Message type 19 is unknown"), SOON).expect("sent"));
        assert!(matches!(&older, Answer::Older(welcome) if welcome.node == "node2"), "{older:?}");
        let busy = asked(|channel| channel.send(failed("It has as many sessions as it may"), SOON).expect("sent"));
        assert!(matches!(&busy, Answer::Silent(why) if why.contains("as many sessions")), "{busy:?}");
        let gone = asked(|_| {});
        assert!(matches!(&gone, Answer::Silent(why) if why.contains("closed")), "{gone:?}");
        let endless = [20, protocol::FRAMING, 0, 0, 0xff, 0xff, 0xff, 0xff];
        let hole = [20, protocol::FRAMING, 0, 0, 0, 0, 0, 2, b'{', b'}'];
        for bytes in [&endless[..], &hole] {
            let odd = asked(|channel| wire::write_all(channel, bytes, Deadline::after(SOON)).expect("sent"));
            assert!(matches!(odd, Answer::Nonsense(_)), "{odd:?}");
        }
        let mut facts = Facts::look("node2", Err(String::new()), Err(String::new()), [127, 0, 0, 1].into());
        let told = |facts: &Facts| Told { asked_us: 0, answered_us: 0, facts: Box::new(facts.clone()) };
        let met = asked(|channel| channel.send(told(&facts), SOON).expect("sent"));
        assert!(matches!(&met, Answer::Met(meeting) if meeting.theirs == facts), "{met:?}");
        facts.bridges = vec![String::new(); 5000];
        let crowded = asked(|channel| channel.send(told(&facts), SOON).expect("sent"));
        assert!(matches!(crowded, Answer::Nonsense(_)), "{crowded:?}");
    }

    #[test]
    fn clocks_are_compared_without_the_time_that_the_peer_took() {
        assert_eq!(clock(1_100_000, 4_900_000), Clock { offset_us: 0, uncertainty_us: 100_000 });
        assert_eq!(clock(6_100_000, 9_900_000), Clock { offset_us: 5_000_000, uncertainty_us: 100_000 });
        assert_eq!(clock(i64::MIN, i64::MAX).offset_us, -3_000_000);
        assert_eq!(clock(i64::MAX, i64::MAX).offset_us, i64::MAX - 3_000_000);
    }

    #[test]
    fn a_daemon_that_does_not_know_the_question_is_told_from_one_that_fails() {
        assert!(is_unknown("Message type 19 is unknown"));
        assert!(!is_unknown("Message type 21 is unknown") && !is_unknown("libxl failed"));
    }
}
