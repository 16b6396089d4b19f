//! What systemd is told of the daemon (sd_notify(3), `Type=notify`). Without systemd nobody is told, and nothing fails.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// How many times in its watchdog's interval the daemon reports: once would do, if nothing ever was late.
const REPORTS: u32 = 4;

/// Whoever supervises the daemon.
#[derive(Debug)]
pub(super) struct Supervisor {
    status: String,
    /// Between two signs of life, if they are wanted.
    interval: Option<Duration>,
    next: Instant,
}

impl Supervisor {
    /// The daemon listens.
    pub(super) fn ready(status: String) -> Supervisor {
        tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
        let interval = sd_notify::watchdog_enabled().map(|wanted| wanted / REPORTS);
        Supervisor { status, interval, next: Instant::now() }
    }

    /// The daemon's loop has turned once more: no thread of its own says this, since such a thread would go on when the loop hangs.
    pub(super) fn turned(&mut self, status: String) {
        if self.status != status {
            tell(&[NotifyState::Status(&status)]);
            self.status = status;
        }
        if let Some(interval) = self.interval.filter(|_| Instant::now() >= self.next) {
            tell(&[NotifyState::Watchdog]);
            self.next = Instant::now() + interval;
        }
    }

    /// No connection is accepted any more.
    pub(super) fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }
}

/// Has the configuration read anew, and lets systemd wait for it (`ExecReload=`, or `Type=notify-reload`).
pub fn reload(read: impl FnOnce()) {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
    read();
    tell(&[NotifyState::Ready]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd cannot be told");
    }
}
