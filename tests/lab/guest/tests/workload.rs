//! The workload as an ordinary process: what it says, what it obeys, and that it goes on after a restart.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use lab_guest::counter_log::count_holes;
use lab_guest::wire::{Answer, BootId, Command, Datagram, LENGTH_MAX, Order, Report};
use lab_guest::workload::{Settings, Workload};
use tempfile::TempDir;

/// Everything in these tests happens within this time on a loaded machine.
const WAIT_MAX: Duration = Duration::from_secs(20);

struct Bench {
    dirs: Vec<TempDir>,
    ear: UdpSocket,
    workload: Option<Workload>,
}

impl Bench {
    fn new(disks: usize) -> Self {
        let ear = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        ear.set_read_timeout(Some(WAIT_MAX)).unwrap();
        let dirs = (0..disks).map(|_| tempfile::tempdir().unwrap()).collect();
        let mut bench = Self { dirs, ear, workload: None };
        bench.boot(1);
        bench
    }

    fn boot(&mut self, boot: u32) {
        let settings = Settings {
            name: "vm0".to_owned(),
            boot: BootId(boot),
            rate_hz: 200,
            area_mib: 1,
            dirty_kib_s: 4096,
            data_dirs: self.data_dirs(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            report_to: self.ear.local_addr().unwrap(),
        };
        self.workload = Some(Workload::start(settings).unwrap());
    }

    fn shut_down(&mut self) {
        assert!(self.workload.take().unwrap().stop(WAIT_MAX));
        self.ear.set_nonblocking(true).unwrap();
        while self.ear.recv(&mut [0; LENGTH_MAX]).is_ok() {}
        self.ear.set_nonblocking(false).unwrap();
    }

    fn data_dirs(&self) -> Vec<PathBuf> {
        self.dirs.iter().map(|dir| dir.path().to_owned()).collect()
    }

    fn hear(&self) -> Datagram {
        let mut buffer = [0; LENGTH_MAX];
        let length = self.ear.recv(&mut buffer).unwrap();
        Datagram::parse(&buffer[..length]).unwrap()
    }

    fn hear_report(&self, wanted: impl Fn(&Report) -> bool) -> Report {
        let deadline = Instant::now() + WAIT_MAX;
        while Instant::now() < deadline {
            match self.hear() {
                Datagram::Report(report) if wanted(&report) => return report,
                _ => {}
            }
        }
        panic!("No such report");
    }

    fn order(&self, to: &str, id: u32, order: Order) {
        let command = Command { to: to.to_owned(), id, order };
        let listener = self.workload.as_ref().unwrap().listening_on();
        self.ear.send_to(command.to_string().as_bytes(), listener).unwrap();
    }

    fn hear_answer(&self, id: u32) -> Answer {
        let deadline = Instant::now() + WAIT_MAX;
        while Instant::now() < deadline {
            match self.hear() {
                Datagram::Answer(answer) if answer.id == id => return answer,
                _ => {}
            }
        }
        panic!("No answer to {id}");
    }
}

/// The threads end before their directories go.
impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(workload) = self.workload.take() {
            let _ended = workload.stop(WAIT_MAX);
        }
    }
}

#[test]
fn no_number_is_skipped_and_the_disks_follow() {
    let bench = Bench::new(2);
    let first = bench.hear_report(|_| true);
    assert_eq!((first.n, first.first, &first.found[..]), (1, 1, &[0, 0][..]));
    for n in 2..=40 {
        assert_eq!(bench.hear_report(|_| true).n, n);
    }
    let late = bench.hear_report(|report| report.synced.iter().all(|synced| *synced >= 40));
    assert_eq!((late.io_errors, late.memory_errors, late.net_errors), (0, 0, 0));
}

#[test]
fn a_restart_goes_on_after_the_last_number_on_the_disks() {
    let mut bench = Bench::new(2);
    let seen = bench.hear_report(|report| report.synced.iter().all(|synced| *synced >= 20));
    bench.shut_down();
    bench.boot(2);
    let again = bench.hear_report(|_| true);
    assert_eq!(again.boot, BootId(2));
    assert_eq!(again.first, again.n);
    assert_eq!(again.first, again.found.iter().max().unwrap() + 1);
    for (found, synced) in again.found.iter().zip(seen.synced) {
        assert!(*found >= synced, "{found} < {synced}");
    }
    bench.hear_report(|report| report.synced.iter().all(|synced| *synced >= again.first));
    let written = again.first;
    bench.shut_down();
    for dir in bench.data_dirs() {
        assert_eq!(count_holes(&dir, written).unwrap(), 0);
    }
}

#[test]
fn memory_is_rewritten_and_checked_at_the_rates_set() {
    let bench = Bench::new(0);
    bench.hear_report(|report| report.rewritten >= 512 && report.rounds >= 1);
    bench.order("vm0", 1, Order::Dirty(0));
    bench.hear_answer(1);
    let still = bench.hear_report(|_| true);
    let later = bench.hear_report(|report| report.n >= still.n + 50);
    assert!(later.rewritten <= still.rewritten + 40, "{later}");
    assert_eq!(later.memory_errors, 0);
}

#[test]
fn commands_are_obeyed_and_answered() {
    let bench = Bench::new(1);
    bench.order("vm1", 1, Order::Quit);
    bench.order("vm0", 2, Order::Rate(1000));
    assert_eq!(bench.hear_answer(2).text, "counting 1000 numbers/s");
    bench.hear_report(|report| report.n >= 100);
    bench.order("*", 3, Order::Verify);
    assert_eq!(bench.hear_answer(3).text, "pages=256 memory_errors=0 holes=0 io_errors=0");
    assert!(!bench.workload.as_ref().unwrap().quit_ordered());
    bench.order("*", 4, Order::Quit);
    bench.hear_answer(4);
    assert!(bench.workload.as_ref().unwrap().quit_ordered());
}
