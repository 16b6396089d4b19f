//! The daemon's process, and the stand-in for its workers.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use bascule::daemon::{self, Allow, Config, Limits, Listeners, NotAdmitted, Policy, Unauthenticated, Workers};
use bascule::ids::DomId;
use bascule::stream::Cancel;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use signal_hook::consts::SIGTERM;
use signal_hook::iterator::Signals;

pub(crate) const AS_SESSION: &str = "as-session";
pub(crate) const AS_WATCHER: &str = "as-watcher";
pub(crate) const AS_DAEMON: &str = "as-daemon";

/// What a peer says to prove that it is NAME.
pub(crate) const I_AM: &str = "i am ";

/// Who may connect to the daemon.
pub(crate) const ALLOWED: &str = "127.0.0.0/17";

/// What the daemon is started with.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) limits: Limits,
    pub(crate) descriptors: u64,
}

impl Default for Setting {
    fn default() -> Setting {
        let limits = Limits { authentication: Duration::from_secs(3), ..Limits::default() };
        Setting { limits, descriptors: 1024 }
    }
}

impl Setting {
    pub(crate) fn words(&self, dir: &std::path::Path) -> Vec<String> {
        let Limits { sessions, sessions_per_address, half_open, half_open_per_address, authentication } = self.limits;
        let numbers = [sessions, sessions_per_address, half_open, half_open_per_address].map(|limit| limit.to_string());
        let mut words = vec![AS_DAEMON.to_owned(), dir.display().to_string()];
        words.extend(numbers);
        words.extend([authentication.as_secs().to_string(), self.descriptors.to_string()]);
        words
    }

    fn parse(words: &[String]) -> Option<Setting> {
        let numbers: Vec<usize> = words.iter().map_while(|word| word.parse().ok()).collect();
        let &[sessions, sessions_per_address, half_open, half_open_per_address, seconds, descriptors] =
            numbers.as_slice()
        else {
            return None;
        };
        let authentication = Duration::from_secs(seconds.try_into().ok()?);
        let limits = Limits { sessions, sessions_per_address, half_open, half_open_per_address, authentication };
        Some(Setting { limits, descriptors: descriptors.try_into().ok()? })
    }
}

/// Serves until SIGTERM; the log on standard error says where.
pub(crate) fn daemon(words: &[String]) -> ExitCode {
    let dir = PathBuf::from(&words[0]);
    let setting = Setting::parse(&words[1..]).expect("a setting");
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, setting.descriptors, hard).expect("its limit");
    tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(false).init();
    let stop = Cancel::default();
    let (mut signals, cancel) = (Signals::new([SIGTERM]).expect("signals"), stop.clone());
    std::thread::spawn(move || signals.forever().for_each(|_| cancel.cancel()));
    let allow = Allow(vec![ALLOWED.parse().expect("a network")]);
    let policy = Arc::new(Policy { allow, limits: setting.limits });
    let program = std::env::current_exe().expect("this program");
    let session = || {
        let mut command = Command::new(&program);
        command.arg(AS_SESSION);
        command
    };
    let watcher = |domid: DomId| {
        let mut command = Command::new(&program);
        command.arg(AS_WATCHER).arg(record(&dir.join("run"), domid));
        command
    };
    let workers = Workers {
        session: &session,
        recovery: &|_| Command::new("/bin/false"),
        watcher: &watcher,
        policy: &|| Arc::clone(&policy),
    };
    let listeners = Listeners::bind(&["127.0.0.1:0".parse().expect("an address")]).expect("a listener");
    let config = Config { run_dir: dir.join("run"), state_dir: dir.join("state") };
    daemon::serve(listeners, &config, &workers, &stop).expect("served");
    ExitCode::SUCCESS
}

/// A watched domain's record.
pub(crate) fn record(run_dir: &Path, domid: DomId) -> PathBuf {
    run_dir.join(format!("watch-{domid}.json"))
}

/// Holds the record until it is killed.
pub(crate) fn watcher(words: &[String]) -> ExitCode {
    let file = File::open(&words[0]).expect("a record");
    let _held = Flock::lock(file, FlockArg::LockExclusiveNonblock).expect("nobody else holds it");
    loop {
        std::thread::park();
    }
}

/// Believes who says that it is somebody, and then answers each line, until it is told to abort.
pub(crate) fn session() -> ExitCode {
    let worker = Unauthenticated::begin().expect("a daemon");
    let stream = TcpStream::from(io::stdin().as_fd().try_clone_to_owned().expect("a connection"));
    let mut answers = stream.try_clone().expect("a second handle");
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let first = lines.next().unwrap_or_default();
    let Some(name) = first.strip_prefix(I_AM) else {
        worker.refused(&format!("it said {first:?}"));
        return ExitCode::FAILURE;
    };
    match worker.authenticated(name) {
        Ok(()) => answers.write_all(b"welcome\n").expect("sent"),
        Err(NotAdmitted::Busy) => {
            answers.write_all(b"busy\n").expect("sent");
            return ExitCode::SUCCESS;
        }
        Err(error) => panic!("{error}"),
    }
    for line in lines {
        if line == "abort" {
            std::process::abort();
        }
        answers.write_all(format!("{line}\n").as_bytes()).expect("sent");
    }
    ExitCode::SUCCESS
}
