//! The daemon among strangers, on this machine alone: floods, silence, garbage, crashes, and what systemd hears of it.
//!
//! The daemon is the library's, in a process of its own, so that its memory and descriptors can be counted. Its workers are stand-ins, which
//! take a line for a proof of who the peer is. Both are this program, started anew.

mod client;
mod process;
mod programs;
mod stand_in;
mod strangers;
mod systemd;
mod watchers;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// What a test comes to.
type Tested = anyhow::Result<()>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some(stand_in::AS_SESSION) => return stand_in::session(),
        Some(stand_in::AS_WATCHER) => return stand_in::watcher(&words[1..]),
        Some(stand_in::AS_DAEMON) => return stand_in::daemon(&words[1..]),
        _ => {}
    }
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("as many descriptors as there may be");
    let mut arguments = Arguments::from_args();
    // Each has the machine to itself: they measure it.
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, tests()).exit_code()
}

fn tests() -> Vec<Trial> {
    let mut tests = vec![
        test("a_thousand_of_a_forbidden_host", strangers::a_thousand_of_a_forbidden_host),
        test("a_thousand_silent_ones_of_an_allowed_host", strangers::a_thousand_silent_ones_of_an_allowed_host),
        test("a_thousand_of_many_addresses", strangers::a_thousand_of_many_addresses),
        test("one_byte_a_second", strangers::one_byte_a_second),
        test("garbage_again_and_again", strangers::garbage_again_and_again),
        test("only_who_is_known_hears_that_there_is_no_room", strangers::only_who_is_known_hears_that_there_is_no_room),
        test("a_worker_that_dies_touches_no_other", strangers::a_worker_that_dies_touches_no_other),
        test("no_descriptor_left_is_no_reason_to_spin", strangers::no_descriptor_left_is_no_reason_to_spin),
        test(
            "a_stopped_daemon_cuts_off_strangers_and_waits_for_sessions",
            strangers::a_stopped_daemon_waits_for_sessions,
        ),
        test("a_worker_has_no_xen_before_its_peer_is_known", programs::a_worker_has_no_xen_before_its_peer_is_known),
        test("a_session_by_hand_is_refused", programs::a_session_by_hand_is_refused),
        test("serve_check_says_what_is_missing", programs::serve_check_says_what_is_missing),
        test("watchers_outlive_their_daemon", watchers::watchers_outlive_their_daemon),
        test("what_a_killed_process_has_left_is_adopted", watchers::what_a_killed_process_has_left_is_adopted),
        test("systemd_hears_of_start_status_and_end", systemd::hears_of_start_status_and_end),
        test("systemd_hears_of_a_reload", systemd::hears_of_a_reload),
        test("systemd_gives_the_socket", systemd::gives_the_socket),
        test("systemd_has_patience", systemd::has_patience),
        test("the_journal_has_priorities", systemd::the_journal_has_priorities),
    ];
    tests.extend(systemd::units());
    tests
}

fn test(name: &str, run: fn() -> Tested) -> Trial {
    Trial::test(name, move || run().map_err(|error| Failed::from(format!("{error:#}"))))
}
