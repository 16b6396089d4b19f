//! What xtask prints: one line for each step, with the time since its start; the errors; the results.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

use std::sync::LazyLock;
use std::time::Instant;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A step begins, or something is worth a line.
pub(crate) fn say(step: &str) {
    eprintln!("[{:6.1} s] {step}", START.elapsed().as_secs_f64());
}

/// Something was asked for and this is the answer.
pub(crate) fn answer(text: &str) {
    println!("{}", text.trim_end());
}

/// The end, with all its causes.
pub(crate) fn fail(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}
