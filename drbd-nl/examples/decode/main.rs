//! Prints DRBD's messages in a capture of netlink traffic, one line each:
//! `cargo run -p drbd-nl --example decode -- FILE.pcap`.
//!
//! To make a capture: `ip link add nlmon0 type nlmon; ip link set nlmon0 up; tcpdump -i nlmon0 -w FILE.pcap`. Families are told apart
//! by the controller's answers, so the capture has to contain the start of a program that speaks to DRBD. Exit code 1: something could not be
//! decoded; 2: the file could not be read.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program of its own")]

mod pcap;

use std::{env, fmt, fs, process::ExitCode};

use drbd_nl::{
    Contents, DecodeError, Dialect, Family, GENL_ID_CTRL, NO_MINOR, Packet, Refusal,
    wire::{self, Message, NLM_F_REQUEST},
};

fn main() -> ExitCode {
    let Some(path) = env::args_os().nth(1) else {
        eprintln!("usage: decode FILE.pcap");
        return ExitCode::from(2);
    };
    let file = match fs::read(&path) {
        Ok(file) => file,
        Err(error) => return unreadable(&path, &error),
    };
    match pcap::generic_netlink(&file) {
        Ok(datagrams) => decode(&datagrams),
        Err(error) => unreadable(&path, &error),
    }
}

fn unreadable(path: &std::ffi::OsStr, error: &dyn fmt::Display) -> ExitCode {
    eprintln!("{}: {error}", path.display());
    ExitCode::from(2)
}

fn decode(datagrams: &[&[u8]]) -> ExitCode {
    let mut decoder = Decoder::default();
    for datagram in datagrams {
        wire::messages(datagram).for_each(|message| decoder.line(message));
    }
    let Decoder { lines, broken, foreign, .. } = decoder;
    eprintln!("{lines} messages, {foreign} of other families, {broken} not decoded");
    if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[derive(Default)]
struct Decoder {
    drbd: Option<(u16, Dialect)>,
    lines: usize,
    foreign: usize,
    broken: usize,
}

impl Decoder {
    fn line(&mut self, message: Result<Message, DecodeError>) {
        self.lines += 1;
        let (head, text) = match message {
            Ok(message) => (format!("{:>5} ", message.sequence), self.text(&message)),
            Err(error) => (String::new(), Err(error)),
        };
        match text {
            Ok(Some(text)) => println!("{head}{text}"),
            Ok(None) => self.foreign += 1,
            Err(error) => {
                self.broken += 1;
                println!("{head}NOT DECODED: {error}");
            }
        }
    }

    fn text(&mut self, message: &Message) -> Result<Option<String>, DecodeError> {
        if let Some(verdict) = message.verdict()? {
            let word = if message.kind == wire::NLMSG_DONE { "done" } else { "error" };
            let text = verdict.text.map(|text| format!(" {text:?}")).unwrap_or_default();
            return Ok(Some(format!("{word} {}{text}", verdict.errno)));
        }
        if message.kind == GENL_ID_CTRL {
            return self.controller(message);
        }
        match self.drbd {
            Some((id, dialect)) if id == message.kind => packet(message, dialect).map(Some),
            _ => Ok(None),
        }
    }

    /// A family that the controller tells about; from then on DRBD's messages are known.
    fn controller(&mut self, message: &Message) -> Result<Option<String>, DecodeError> {
        let Some(family) = Family::parse(message)? else {
            return Ok(Some("controller request".to_owned()));
        };
        if let (Some(id), Some(dialect)) = (family.family_id, family.dialect()) {
            self.drbd = Some((id, dialect));
        }
        Ok(Some(format!("{family:?}")))
    }
}

fn packet(message: &Message, dialect: Dialect) -> Result<String, DecodeError> {
    let packet = Packet::parse(&message.payload)?;
    let contents = packet.contents(dialect)?;
    let minor = if packet.minor == NO_MINOR { String::new() } else { format!(" minor {}", packet.minor) };
    let code = match (message.flags & NLM_F_REQUEST, packet.code) {
        (NLM_F_REQUEST, flags) => format!("request flags {flags:#x}"),
        (_, code @ (0..=4 | 101)) => format!("ok {code}"),
        (_, code) => format!("refused: {}", Refusal::from_code(code, dialect)),
    };
    Ok(format!("{}{minor} {code} {}", packet.command, fields(&contents)))
}

/// The contents without the outer braces.
fn fields(contents: &Contents) -> String {
    let text = format!("{contents:?}");
    text.trim_start_matches("Contents").trim_start_matches(" { ").trim_end_matches(" }").to_owned() + " }"
}
