//! The configuration that is in force: the file's, and the command line's where that says something.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bascule::config::{Config, Count, Level};
use bascule::daemon::{self, Allow, Limits, Policy};
use signal_hook::consts::SIGHUP;
use signal_hook::iterator::Signals;

use super::exit::Error;
use super::{Args, Command, Serve};

/// Where the settings are read from, and what stands above them.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// None for what the daemon starts: that is told everything, and goes on where the file has become wrong meanwhile.
    file: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    verbose: u8,
}

impl Source {
    pub(crate) fn new(args: &Args) -> Source {
        let needs_file = match &args.command {
            Command::Create(_) | Command::Shutdown(_) | Command::Destroy(_) => false,
            Command::Session(_) | Command::Watch(_) => false,
            Command::Recover(recover) => !recover.is_adoption(),
            Command::Config(config) => config.needs_file(),
            _ => true,
        };
        Source {
            file: needs_file.then(|| args.config.clone()),
            state_dir: args.state_dir.clone(),
            verbose: args.verbose,
        }
    }

    /// The file, and whether there is one.
    pub(crate) fn described(&self) -> String {
        match &self.file {
            Some(file) if file.exists() => format!("{} is right", file.display()),
            Some(file) => format!("there is no {}: every setting has its default", file.display()),
            None => "none is read".into(),
        }
    }

    /// The file's settings, under those options that every command has.
    pub(crate) fn load(&self) -> Result<Config, bascule::config::Error> {
        let mut config = self.file.as_deref().map(Config::load).transpose()?.unwrap_or_default();
        if let Some(dir) = &self.state_dir {
            config.state.dir = dir.clone();
            config.set_by_command_line("state", "dir");
        }
        if self.verbose > 0 {
            config.log.level = config.log.level.raised(self.verbose);
            config.set_by_command_line("log", "level");
        }
        Ok(config)
    }
}

/// Lays the options of `serve` over the file's settings.
pub(crate) fn with_options(mut config: Config, args: &Serve) -> Config {
    let relocation = &mut config.relocation;
    let mut set = Vec::new();
    if !args.address.is_empty() {
        relocation.address.clone_from(&args.address);
        set.push(("relocation", "address"));
    }
    if let Some(port) = args.port {
        relocation.port = port;
        set.push(("relocation", "port"));
    }
    if !args.allow.is_empty() {
        relocation.hosts_allow = Allow(args.allow.clone());
        set.push(("relocation", "hosts-allow"));
    }
    if let Some(sessions) = args.sessions {
        relocation.sessions = Count(sessions);
        set.push(("relocation", "sessions"));
    }
    for (name, bound) in &args.bounds.timeouts {
        config.timeouts.destination.set(name, *bound);
    }
    set.into_iter().for_each(|(table, key)| config.set_by_command_line(table, key));
    config
}

/// The settings of a daemon that is running: SIGHUP replaces them.
#[derive(Clone, Debug)]
pub(crate) struct Live(Arc<Mutex<Now>>);

#[derive(Debug)]
struct Now {
    config: Arc<Config>,
    policy: Arc<Policy>,
}

impl Live {
    pub(crate) fn new(config: Config) -> Live {
        Live(Arc::new(Mutex::new(Now::new(config))))
    }

    pub(crate) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner).config)
    }

    pub(crate) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner).policy)
    }

    /// Reads the file anew at each SIGHUP. A wrong one changes nothing.
    pub(crate) fn follow(&self, read: impl Fn() -> Result<Config, Error> + Send + 'static) -> Result<(), Error> {
        let mut signals = Signals::new([SIGHUP])?;
        let live = self.clone();
        std::thread::Builder::new().name("reload".into()).spawn(move || {
            for _ in &mut signals {
                daemon::reload(|| live.reload(&read));
            }
        })?;
        Ok(())
    }

    fn reload(&self, read: &impl Fn() -> Result<Config, Error>) {
        let config = match read() {
            Ok(config) => config,
            Err(error) => {
                let why = bascule::migrate::chain(error.as_ref());
                why.lines().for_each(|line| tracing::error!("configuration not taken over: {line}"));
                return;
            }
        };
        for (setting, value) in waits_for_restart(&self.config(), &config) {
            tracing::warn!(setting, value, "needs a restart of the daemon");
        }
        let Allow(allow) = &config.relocation.hosts_allow;
        if config.relocation.enabled && allow.is_empty() {
            tracing::warn!("relocation.hosts-allow is empty: nobody may connect");
        }
        tracing::info!(hosts_allow = allow.len(), sessions = config.relocation.sessions.0, "configuration taken over");
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Now::new(config);
    }
}

impl Now {
    fn new(config: Config) -> Now {
        let allow = config.relocation.hosts_allow.clone();
        let policy = Policy { allow, limits: limits(&config) };
        Now { config: Arc::new(config), policy: Arc::new(policy) }
    }
}

fn limits(config: &Config) -> Limits {
    let relocation = &config.relocation;
    Limits {
        sessions: relocation.sessions.0,
        sessions_per_address: relocation.sessions_per_address.0,
        half_open: relocation.half_open.0,
        half_open_per_address: relocation.half_open_per_address.0,
        authentication: config.timeouts.destination.authentication,
    }
}

/// What a running daemon does not change.
const FIXED: [(&str, &str); 5] =
    [("relocation", "enabled"), ("relocation", "port"), ("relocation", "address"), ("state", "dir"), ("log", "level")];

fn waits_for_restart(old: &Config, new: &Config) -> Vec<(String, String)> {
    let pairs = old.shown().into_iter().zip(new.shown());
    let changed = pairs.filter(|(old, new)| FIXED.contains(&(new.table, new.key)) && old.toml != new.toml);
    changed.map(|(_, new)| (format!("{}.{}", new.table, new.key), new.toml)).collect()
}

/// What the log's filter is made of: a command warns, the daemon says what the configuration says; --verbose raises both.
pub(crate) fn log_filter(serves: Option<Level>, verbose: u8) -> &'static str {
    match serves.unwrap_or(Level::Warn.raised(verbose)) {
        // What libxl complains of stands in the error that is printed.
        Level::Warn if serves.is_none() => "warn,libxl=off",
        level => level.name(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(Path::new("f"), text).expect("a configuration")
    }

    #[test]
    fn a_wrong_file_keeps_the_old_settings_and_a_right_one_replaces_them() {
        let live = Live::new(config("[relocation]\nhosts-allow = ['10.0.0.1']\nsessions = 2"));
        live.reload(&|| Ok(Config::parse(Path::new("f"), "[relocation]\nsessions = 0")?));
        assert_eq!((live.policy().limits.sessions, live.policy().allow.0.len()), (2, 1));
        live.reload(&|| Ok(config("[relocation]\nsessions = 3\n[timeouts.destination]\ngo = 5")));
        assert_eq!((live.policy().limits.sessions, &live.policy().allow), (3, &Allow::everywhere()));
        assert_eq!(live.config().timeouts.destination.go.as_secs(), 5);
    }

    #[test]
    fn what_waits_for_a_restart_is_named() {
        let (old, new) = (config(""), config("[relocation]\nport = 1\nsessions = 3\n[state]\ndir = '/x'"));
        let names: Vec<String> = waits_for_restart(&old, &new).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["relocation.port", "state.dir"]);
    }

    #[test]
    fn the_log_says_what_it_said() {
        let rows = [
            ((None, 0), "warn,libxl=off"),
            ((None, 1), "info"),
            ((None, 9), "trace"),
            ((Some(Level::Warn), 0), "warn"),
        ];
        for ((serves, verbose), filter) in rows {
            assert_eq!(log_filter(serves, verbose), filter);
        }
    }
}
