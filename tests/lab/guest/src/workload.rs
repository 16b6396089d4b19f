//! The workload: one thread counts and reports at a fixed rate, one for each data disk writes the numbers down, one
//! rewrites and checks the memory area, one listens for commands.
//!
//! The counter does not wait for the disks: a report says which numbers they have confirmed. So a disk that stands still
//! is seen as such, and a copy of the guest that runs without its disk cannot hide.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::time::{ClockId, clock_gettime};

use crate::console::say;
use crate::counter_log::{self, CounterLog};
use crate::memory::Memory;
use crate::wire::{Answer, BootId, Command, LENGTH_MAX, Order, RATE_HZ_MAX, Report};

/// Pages that are worked on without giving the lock away, so that the counter never waits long for it.
const SLICE_PAGES: usize = 256;
/// How often the memory thread does its share while pages are rewritten.
const BUSY_TICK: Duration = Duration::from_millis(25);
/// How often it does while they are only checked: a wake-up is dear under emulation.
const IDLE_TICK: Duration = Duration::from_millis(100);
/// Rate of checking in KiB per second.
const CHECKED_KIB_S: u64 = 1024;
/// A stall (a migration, say) is not made up for: at most this much of a rate's work is done at once.
const DEBT_MAX: Duration = Duration::from_millis(200);
/// One page of 4 KiB, in units of a KiB per second times microseconds.
const PAGE_KIB_US: u128 = 4_000_000;
/// How long a thread waits before it looks whether the workload ends.
const STOP_POLL: Duration = Duration::from_millis(500);
/// Pause after a failed write.
const RETRY_AFTER_ERROR: Duration = Duration::from_millis(250);
/// After this many errors, only every hundredth goes to the console.
const ERRORS_TOLD: u64 = 10;

/// What a workload needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The guest's name, without spaces.
    pub name: String,
    /// This boot.
    pub boot: BootId,
    /// Numbers per second.
    pub rate_hz: u32,
    /// Size of the memory area in MiB.
    pub area_mib: usize,
    /// Rate of rewriting in KiB per second.
    pub dirty_kib_s: u64,
    /// A directory on each data disk.
    pub data_dirs: Vec<PathBuf>,
    /// Where commands arrive.
    pub listen: SocketAddr,
    /// Where reports and answers go.
    pub report_to: SocketAddr,
}

/// A running workload.
#[derive(Debug)]
pub struct Workload {
    shared: Arc<Shared>,
    listening_on: SocketAddr,
    threads: Vec<JoinHandle<()>>,
}

/// What the threads have in common.
#[derive(Debug)]
struct Shared {
    settings: Settings,
    first: u64,
    disks: Vec<Disk>,
    clock: Clock,
    memory: Mutex<Memory>,
    rate_hz: AtomicU32,
    dirty_kib_s: AtomicU64,
    holes: AtomicU64,
    net_errors: AtomicU64,
    quit: AtomicBool,
    socket: UdpSocket,
}

/// What is known of one disk.
#[derive(Debug)]
struct Disk {
    dir: PathBuf,
    found: u64,
    synced: AtomicU64,
    io_errors: AtomicU64,
}

impl Workload {
    /// Opens the logs, goes on after the last number that they hold, and starts the threads.
    ///
    /// # Errors
    /// A log or a socket that cannot be opened.
    pub fn start(settings: Settings) -> anyhow::Result<Self> {
        let logs = open_logs(&settings)?;
        let socket = open_socket(&settings)?;
        let listening_on = socket.local_addr()?;
        let shared = Arc::new(Shared::new(settings, &logs, socket));
        let mut threads = vec![
            spawn("counter", &shared, |shared| shared.count())?,
            spawn("memory", &shared, |shared| shared.work_on_memory())?,
            spawn("commands", &shared, |shared| shared.take_commands())?,
        ];
        for (index, log) in logs.into_iter().enumerate() {
            threads.push(spawn("disk", &shared, move |shared| shared.write_log(index, log))?);
        }
        Ok(Self { shared, listening_on, threads })
    }

    /// The first number of this run.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.shared.first
    }

    /// Where commands are taken.
    #[must_use]
    pub fn listening_on(&self) -> SocketAddr {
        self.listening_on
    }

    /// Whether the command `quit` has come.
    #[must_use]
    pub fn quit_ordered(&self) -> bool {
        self.shared.quit.load(Ordering::Relaxed)
    }

    /// Ends all threads and closes the logs. Returns false if one of them, on a disk that hangs say, did not end within `wait_max`.
    #[must_use]
    pub fn stop(self, wait_max: Duration) -> bool {
        self.shared.clock.stop();
        let deadline = Instant::now() + wait_max;
        while !self.threads.iter().all(JoinHandle::is_finished) {
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(Duration::from_millis(10));
        }
        self.threads.into_iter().all(|thread| thread.join().is_ok())
    }
}

fn open_logs(settings: &Settings) -> anyhow::Result<Vec<CounterLog>> {
    let open = |dir: &PathBuf| CounterLog::open(dir).with_context(|| format!("No log in {}", dir.display()));
    settings.data_dirs.iter().map(open).collect()
}

fn open_socket(settings: &Settings) -> anyhow::Result<UdpSocket> {
    let socket = UdpSocket::bind(settings.listen).with_context(|| format!("No socket on {}", settings.listen))?;
    socket.set_broadcast(true)?;
    socket.set_read_timeout(Some(STOP_POLL))?;
    Ok(socket)
}

fn spawn(name: &str, shared: &Arc<Shared>, work: impl FnOnce(&Shared) + Send + 'static) -> io::Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    thread::Builder::new().name(name.to_owned()).spawn(move || work(&shared))
}

impl Shared {
    fn new(settings: Settings, logs: &[CounterLog], socket: UdpSocket) -> Self {
        let last = logs.iter().map(CounterLog::last).max().unwrap_or(0);
        let disk = |(dir, log): (&PathBuf, &CounterLog)| Disk {
            dir: dir.clone(),
            found: log.last(),
            synced: AtomicU64::new(log.last()),
            io_errors: AtomicU64::new(0),
        };
        Self {
            first: last + 1,
            disks: settings.data_dirs.iter().zip(logs).map(disk).collect(),
            clock: Clock::new(last),
            memory: Mutex::new(Memory::new(settings.area_mib)),
            rate_hz: AtomicU32::new(settings.rate_hz.clamp(1, RATE_HZ_MAX)),
            dirty_kib_s: AtomicU64::new(settings.dirty_kib_s),
            holes: AtomicU64::new(0),
            net_errors: AtomicU64::new(0),
            quit: AtomicBool::new(false),
            settings,
            socket,
        }
    }

    /// The counter. When it is late it goes on at the rate from now: no number is skipped and none is sent in a burst.
    fn count(&self) {
        let mut due = Instant::now();
        while !self.clock.stops_before(due) {
            let n = self.clock.tick();
            self.send(&self.report(n).to_string());
            let period = Duration::from_secs(1) / self.rate_hz.load(Ordering::Relaxed);
            due = (due + period).max(Instant::now());
        }
    }

    fn report(&self, n: u64) -> Report {
        let memory = lock(&self.memory).totals();
        Report {
            name: self.settings.name.clone(),
            boot: self.settings.boot,
            n,
            first: self.first,
            found: self.disks.iter().map(|disk| disk.found).collect(),
            synced: self.disks.iter().map(|disk| disk.synced.load(Ordering::Relaxed)).collect(),
            holes: self.holes.load(Ordering::Relaxed),
            io_errors: self.disks.iter().map(|disk| disk.io_errors.load(Ordering::Relaxed)).sum(),
            memory_errors: memory.errors,
            rounds: memory.rounds,
            rewritten: memory.rewritten,
            net_errors: self.net_errors.load(Ordering::Relaxed),
            uptime_ms: uptime_ms(),
        }
    }

    /// The network may lose datagrams; only the count of those that it refused is kept.
    fn send(&self, text: &str) {
        if self.socket.send_to(text.as_bytes(), self.settings.report_to).is_err() {
            self.net_errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One disk's log: writes what the counter has reached, as many numbers at once as have come up meanwhile.
    fn write_log(&self, index: usize, mut log: CounterLog) {
        let disk = &self.disks[index];
        while let Some(n) = self.clock.wait_beyond(log.last()) {
            let result = log.append_up_to(n, uptime_ms());
            disk.synced.store(log.last(), Ordering::Relaxed);
            if let Err(error) = result {
                disk.count_error(&error);
                self.clock.stops_before(Instant::now() + RETRY_AFTER_ERROR);
            }
        }
    }

    fn work_on_memory(&self) {
        let (mut rewriting, mut checking) = (Pace::default(), Pace::default());
        let mut last_tick = Instant::now();
        loop {
            let kib_s = self.dirty_kib_s.load(Ordering::Relaxed);
            let tick = if kib_s == 0 { IDLE_TICK } else { BUSY_TICK };
            if self.clock.stops_before(last_tick + tick) {
                return;
            }
            let elapsed = last_tick.elapsed();
            last_tick += elapsed;
            self.in_slices(rewriting.pages_due(kib_s, elapsed), Memory::rewrite);
            self.in_slices(checking.pages_due(CHECKED_KIB_S, elapsed), Memory::check);
        }
    }

    fn in_slices(&self, pages: usize, work: fn(&mut Memory, usize)) {
        for start in (0..pages).step_by(SLICE_PAGES) {
            work(&mut lock(&self.memory), SLICE_PAGES.min(pages - start));
        }
    }

    /// Commands arrive by broadcast, so most of what comes may be for others.
    fn take_commands(&self) {
        let mut buffer = [0; LENGTH_MAX];
        while !self.clock.stops_before(Instant::now()) {
            let Ok((length, _)) = self.socket.recv_from(&mut buffer) else {
                continue;
            };
            match Command::parse(&buffer[..length]) {
                Ok(command) if command.is_for(&self.settings.name) => self.obey(&command),
                _ => {}
            }
        }
    }

    fn obey(&self, command: &Command) {
        let text = match command.order {
            Order::Dirty(kib_s) => {
                self.dirty_kib_s.store(kib_s, Ordering::Relaxed);
                format!("rewriting {kib_s} KiB/s")
            }
            Order::Rate(hz) => {
                self.rate_hz.store(hz, Ordering::Relaxed);
                format!("counting {hz} numbers/s")
            }
            Order::Verify => self.verify(),
            Order::Quit => {
                self.quit.store(true, Ordering::Relaxed);
                "quitting".to_owned()
            }
        };
        say(format_args!("{}: {text}", command.order));
        let Settings { name, boot, .. } = self.settings.clone();
        self.send(&Answer { name, boot, id: command.id, text }.to_string());
    }

    /// Checks the whole area and the logs as the disks have them.
    fn verify(&self) -> String {
        let pages = lock(&self.memory).page_count();
        self.in_slices(pages, Memory::check);
        let mut holes = 0;
        for disk in &self.disks {
            match counter_log::count_holes(&disk.dir, disk.synced.load(Ordering::Relaxed)) {
                Ok(found) => holes += found,
                Err(error) => disk.count_error(&error),
            }
        }
        self.holes.store(holes, Ordering::Relaxed);
        let io_errors: u64 = self.disks.iter().map(|disk| disk.io_errors.load(Ordering::Relaxed)).sum();
        let errors = lock(&self.memory).totals().errors;
        format!("pages={pages} memory_errors={errors} holes={holes} io_errors={io_errors}")
    }
}

impl Disk {
    fn count_error(&self, error: &io::Error) {
        let count = self.io_errors.fetch_add(1, Ordering::Relaxed) + 1;
        if count <= ERRORS_TOLD || count.is_multiple_of(100) {
            say(format_args!("I/O error {count} on {}: {error}", self.dir.display()));
        }
    }
}

/// Turns a rate and the time that has passed into whole pages; the rest is carried over.
#[derive(Debug, Default)]
struct Pace {
    owed_kib_us: u128,
}

impl Pace {
    fn pages_due(&mut self, kib_s: u64, elapsed: Duration) -> usize {
        self.owed_kib_us += u128::from(kib_s) * elapsed.min(DEBT_MAX).as_micros();
        let pages = self.owed_kib_us / PAGE_KIB_US;
        self.owed_kib_us %= PAGE_KIB_US;
        usize::try_from(pages).unwrap_or(usize::MAX)
    }
}

/// The number that the counter has reached, for whoever waits for the next one.
#[derive(Debug)]
struct Clock {
    state: Mutex<(u64, bool)>,
    changed: Condvar,
}

impl Clock {
    fn new(n: u64) -> Self {
        Self { state: Mutex::new((n, false)), changed: Condvar::new() }
    }

    fn tick(&self) -> u64 {
        let mut state = lock(&self.state);
        state.0 += 1;
        self.changed.notify_all();
        state.0
    }

    fn stop(&self) {
        lock(&self.state).1 = true;
        self.changed.notify_all();
    }

    /// Waits for a number above `n`; `None` when the workload ends.
    fn wait_beyond(&self, n: u64) -> Option<u64> {
        let waiting = |state: &mut (u64, bool)| state.0 <= n && !state.1;
        let state = self.changed.wait_while(lock(&self.state), waiting).unwrap_or_else(PoisonError::into_inner);
        (!state.1).then_some(state.0)
    }

    /// Sleeps until `due`; true as soon as the workload ends.
    fn stops_before(&self, due: Instant) -> bool {
        loop {
            if lock(&self.state).1 {
                return true;
            }
            let now = Instant::now();
            if now >= due {
                return false;
            }
            thread::sleep((due - now).min(STOP_POLL));
        }
    }
}

/// A thread that panicked has said so on the console; the others go on with what it left.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// CLOCK_MONOTONIC in milliseconds: on Linux the time since boot, suspension excluded.
fn uptime_ms() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
