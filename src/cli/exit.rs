//! Exit codes, and the one place where an error's chain is printed.

use std::process::ExitCode;

use bascule::migrate::chain;

/// Everything was done.
pub(crate) const DONE: u8 = 0;
/// It was not done; nothing was changed or everything was taken back.
pub(crate) const FAILED: u8 = 1;
/// A person must look: a domain is suspended, or it is not known where it runs.
pub(crate) const IN_DOUBT: u8 = 3;
/// Preflight refused it; nothing was changed.
pub(crate) const REFUSED: u8 = 4;
/// `check` found an error, or something open that should be closed, or closed that should be open.
pub(crate) const DIFFERS: u8 = 5;
/// `check` found nothing of that kind, and something that cannot be told.
pub(crate) const CANNOT_TELL: u8 = 6;

/// `check` found nothing of that kind, and something to see to.
pub(crate) const WARNS: u8 = 7;

/// The table for `check --help`: the worst of all findings decides.
pub(crate) const CHECK_TABLE: &str = "\
Exit codes, for monitoring; the worst finding decides:
  0  good: there is nothing, or notes alone
  7  warning: something is to be seen to, and domains can move
  5  critical: domains cannot move or are in danger, or the port is open or closed where it should not be
  6  cannot tell: none of these, but something could not be looked at";

/// The table for `--help`.
pub(crate) const TABLE: &str = "\
Exit codes:
  0  done
  1  not done; nothing was changed, or everything was taken back and the domain runs where it was
  2  the command line is wrong
  3  a person must look: a domain is suspended, or it is not known where it runs; the message says what to type
  4  refused by preflight; nothing was changed
  5  check: an error; also something open that should be closed, or closed that should be open
  6  check: no error and no warning, but something cannot be told
  7  check: warnings, and no error";

/// A command's error.
pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

/// Prints an error, if it is one, and gives the code.
pub(crate) fn of(done: Result<(), Error>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::from(DONE),
        Err(error) => fail(FAILED, &chain(error.as_ref())),
    }
}

/// Prints why a command ends with this code.
#[expect(clippy::print_stderr, reason = "the program's messages")]
pub(crate) fn fail(code: u8, message: &str) -> ExitCode {
    eprintln!("bascule: {message}");
    ExitCode::from(code)
}
