//! The guest's console: one line per event, prefixed so that it can be told from the kernel's.

use std::fmt;
use std::io::{self, Write};

/// Writes `lab-guest: TEXT` as one line. A console that cannot be written to changes nothing for the workload.
pub fn say(text: fmt::Arguments<'_>) {
    let line = format!("lab-guest: {text}\n");
    drop(io::stdout().lock().write_all(line.as_bytes()));
}
