//! `bascule migrate`: one line a phase, and the receipt.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bascule::config::Config;
use bascule::fault::Faults;
use bascule::migrate::{Outcome, chain, migrate};
use bascule::plan::{Request, Timeouts};
use bascule::protocol::{Finding, Severity};
use bascule::report::{Event, Phase, Receipt, Report};
use bascule::stream::Cancel;

use super::Migrate;
use super::exit::{self, DONE, Error, FAILED, IN_DOUBT, REFUSED};
use super::here::Here;
use super::pace::Pace;

/// Runs the command.
pub(crate) fn run(args: &Migrate, config: &Config) -> ExitCode {
    match start(args, config) {
        Ok(outcome) => conclude(args, outcome),
        Err(error) => exit::fail(FAILED, &chain(error.as_ref())),
    }
}

fn start(args: &Migrate, config: &Config) -> Result<Outcome, Error> {
    let here = Here::open(&config.security, &config.guests, Faults::new(args.rehearsal.fail_at))?;
    let domid = here.context.find(&args.domain)?.domain.domid;
    let request = Request {
        domid,
        host: args.host.clone(),
        port: args.port,
        handover: args.handover,
        shared_disks: args.shared_disks.clone(),
        bridges: args.bridges.clone(),
        dry_run: args.dry_run,
        timeouts: timeouts(args, config.timeouts.source),
    };
    let report: Arc<dyn Report> = match args.json {
        true => Arc::new(Json),
        false => Arc::new(Lines::new(args)),
    };
    let cancel = Cancel::default();
    super::serve::cancel_on_signal(&cancel)?;
    Ok(migrate(&here.host(&config.state), request, &report, &cancel))
}

fn timeouts(args: &Migrate, mut timeouts: Timeouts) -> Timeouts {
    for (name, bound) in &args.timeouts {
        timeouts.set(name, *bound);
    }
    timeouts
}

fn conclude(args: &Migrate, outcome: Outcome) -> ExitCode {
    match outcome {
        Outcome::Moved(receipt) if args.json => {
            out!("{}", serde_json::json!({ "event": "moved", "receipt": receipt }));
            ExitCode::from(DONE)
        }
        Outcome::Moved(receipt) => {
            print_receipt(&receipt);
            ExitCode::from(DONE)
        }
        Outcome::Clear(findings) => {
            print_findings(args, &findings);
            ExitCode::from(DONE)
        }
        Outcome::Refused(findings) => {
            print_findings(args, &findings);
            exit::fail(REFUSED, &format!("{} is not moved: nothing was changed", args.domain))
        }
        Outcome::Failed(error) => {
            exit::fail(FAILED, &format!("{}. {} was not touched and runs on here", chain(error.as_ref()), args.domain))
        }
        Outcome::RolledBack { reason } => exit::fail(
            FAILED,
            &format!("{}. Everything was taken back: {} runs on here", chain(reason.as_ref()), args.domain),
        ),
        Outcome::Indeterminate { reason, advice } => {
            exit::fail(IN_DOUBT, &format!("{}\n{advice}", chain(reason.as_ref())))
        }
    }
}

fn print_findings(args: &Migrate, findings: &[Finding]) {
    if args.json {
        out!("{}", serde_json::json!({ "event": "findings", "findings": findings }));
        return;
    }
    if findings.is_empty() {
        out!("Nothing stands against moving {} to {}.", args.domain, args.host);
    }
    for Finding { code, severity, node, found, remedy } in findings {
        let word = match severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        out!("{word}: {node}: {found} [{code}]\n    {remedy}.");
    }
}

fn print_receipt(receipt: &Receipt) {
    let Receipt { times, single_writer, .. } = receipt;
    let mib = receipt.bytes >> 20;
    let stream_ms = (times.precopy + times.stop_and_copy).as_millis().max(1);
    let mib_per_s = (u128::from(receipt.bytes) * 1000 / stream_ms) >> 20;
    out!(
        "{} runs on {} (domid {}), moved from {}.",
        receipt.domain,
        receipt.destination,
        receipt.domid,
        receipt.source
    );
    out!(
        "  total        {:>9}   downtime {} (destination's part: {})",
        s(times.total),
        s(times.downtime),
        s(times.destination_downtime)
    );
    out!("  stream       {mib:>5} MiB   in {} rounds, {mib_per_s} MiB/s, {}", receipt.rounds, receipt.protection);
    out!(
        "  phases       preflight {}, precopy {}, stop-and-copy {}, release {}, attach {}, handover {}, retire {}",
        s(times.preflight),
        s(times.precopy),
        s(times.stop_and_copy),
        s(times.release),
        s(times.attach),
        s(times.handover),
        s(times.retire),
    );
    out!(
        "  single writer ({}): both Primary for {}; written by the source after the suspend: {} sectors; by the destination before it ran: {} sectors",
        receipt.handover,
        s(single_writer.both_primary),
        single_writer.source_sectors,
        single_writer.destination_sectors,
    );
    for warning in &receipt.warnings {
        out!("  warning: {warning}");
    }
}

fn s(duration: Duration) -> String {
    format!("{:.3} s", duration.as_secs_f64())
}

/// Events as JSON, one object a line.
struct Json;

impl Report for Json {
    fn event(&self, event: Event<'_>) {
        if let Ok(text) = serde_json::to_string(&event) {
            out!("{text}");
        }
    }
}

/// Events as lines for people: one a phase, one a round, and at most one a second within a round.
struct Lines {
    domain: String,
    host: String,
    pace: Pace,
}

impl Lines {
    fn new(args: &Migrate) -> Lines {
        Lines { domain: args.domain.clone(), host: args.host.clone(), pace: Pace::default() }
    }
}

impl Report for Lines {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Phase { phase, at_ms } => {
                let seconds = Duration::from_millis(at_ms).as_secs_f64();
                out!("[{seconds:7.3}] {}", sentence(phase, &self.domain, &self.host));
            }
            Event::Progress { round, done, total, bytes } if self.pace.is_due(round, done == total) => {
                out!("            round {round}: {done} of {total} pages, {} MiB sent", bytes >> 20);
            }
            Event::Suspended => out!("            {} is suspended: downtime begins", self.domain),
            Event::Undo { step } => out!("            taking back: {step}"),
            Event::Preflight { findings } => {
                for finding in findings.iter().filter(|finding| finding.severity == Severity::Warning) {
                    out!("            warning: {}: {}", finding.node, finding.found);
                }
            }
            Event::Progress { .. } => {}
        }
    }
}

fn sentence(phase: Phase, domain: &str, host: &str) -> String {
    match phase {
        Phase::Preflight => format!("preflight: {domain} to {host}"),
        Phase::Precopy => "precopy: the memory is streamed, the domain runs".into(),
        Phase::Release => "release: the right to write the volumes".into(),
        Phase::Attach => format!("attach: {host} completes its copy"),
        Phase::Handover => format!("handover: nobody has written meanwhile; {host} is told to start {domain}"),
        Phase::Retire => "retire: the suspended copy goes".into(),
    }
}
