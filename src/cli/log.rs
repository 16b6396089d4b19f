//! Where the program's log goes: standard error, as a person reads it, or as the journal takes it.

use std::fmt;
use std::io::IsTerminal;
use std::os::fd::AsFd;

use nix::sys::stat::fstat;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Starts the log, with `BASCULE_LOG` as its filter if that is set.
pub(crate) fn start(level: &str) {
    let filter = EnvFilter::try_from_env("BASCULE_LOG").unwrap_or_else(|_| level.into());
    let stderr = std::io::stderr();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if is_journal(&stderr, std::env::var("JOURNAL_STREAM").ok().as_deref()) {
        let format = Format::default().with_ansi(false).with_level(false).without_time();
        log.with_ansi(false).event_format(OneLine { format, prefix: priority }).init();
    } else if stderr.is_terminal() {
        log.init();
    } else {
        log.with_ansi(false)
            .event_format(OneLine { format: Format::default().with_ansi(false), prefix: |_| "" })
            .init();
    }
}

/// Whether it leads to the journal: the variable names the device and inode of the stream that does (systemd.exec(5)). One that was
/// inherited names another stream.
fn is_journal(stderr: impl AsFd, journal_stream: Option<&str>) -> bool {
    let stat = fstat(stderr).ok();
    stat.is_some_and(|stat| journal_stream == Some(&format!("{}:{}", stat.st_dev, stat.st_ino)))
}

/// The priority as the journal takes it at the beginning of a line (sd-daemon(3)). It adds the time itself.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        _ => "<7>",
    }
}

/// One line per event, whatever is in it: peers have a say in it.
struct OneLine<T> {
    format: Format<Full, T>,
    prefix: fn(Level) -> &'static str,
}

impl<S, N, T> FormatEvent<S, N> for OneLine<T>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    Format<Full, T>: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = String::new();
        self.format.format_event(context, Writer::new(&mut line), event)?;
        writeln!(to, "{}{}", (self.prefix)(*event.metadata().level()), in_one_line(&line))
    }
}

/// Control characters become what Rust writes for them.
fn in_one_line(line: &str) -> String {
    let escape = |char: char| match char.is_control() {
        true => char.escape_default().collect::<String>(),
        false => char.into(),
    };
    line.trim_end().chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};

    use super::*;

    #[test]
    fn the_journal_is_known_by_device_and_inode() {
        let file = tempfile::tempfile().expect("a file");
        let stat = fstat(&file).expect("its inode");
        assert!(is_journal(&file, Some(&format!("{}:{}", stat.st_dev, stat.st_ino))));
        assert!(!is_journal(&file, Some("1:2")) && !is_journal(&file, None));
    }

    #[test]
    fn an_event_is_one_line_with_its_priority() {
        let mut file = tempfile::tempfile().expect("a file");
        let format = Format::default().with_ansi(false).with_level(false).without_time().with_target(false);
        let log = tracing_subscriber::fmt().with_ansi(false).event_format(OneLine { format, prefix: priority });
        let subscriber = log.with_writer(file.try_clone().expect("a second one")).finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(why = %"a\n<0>b\u{1b}[2J", "refused");
        });
        let mut text = String::new();
        file.rewind().and_then(|()| file.read_to_string(&mut text)).expect("the log");
        assert_eq!(text, "<4>refused why=a\\n<0>b\\u{1b}[2J\n");
    }
}
