//! `bascule config`: what is in force, the complete file, the import of xend's; and the configuration of a domain.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use bascule::config::{Config as Settings, FILE_LEN_MAX, Origin, Shown, xend};
use bascule::xen::Context;
use clap::{Args, Subcommand};
use serde_json::json;

use super::exit::Error;

/// Show the configuration, print a complete file, or import xend's; or show a domain's
#[derive(Debug, Args)]
pub(crate) struct Config {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Every setting as it is in force, and where it comes from
    Show {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a complete file: every setting with its default, under what it is for
    Default,
    /// Make a configuration out of an old xend-config.sxp, and say what was carried over, what was not, and what was unsafe
    Import {
        /// xend's configuration, /etc/xen/xend-config.sxp as a rule
        file: PathBuf,
        /// Where to write; nothing that exists is overwritten. Standard output unless given
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Print the configuration that libxl has stored of a domain, as JSON, with what was changed since it was started
    ///
    /// What it is started from anew when it reboots, and what a migration takes along. Passwords of its displays stand in it.
    Domain {
        /// The domain, by name or number
        domain: String,
    },
}

impl Config {
    /// Whether it is about the configuration of this host.
    pub(crate) fn needs_file(&self) -> bool {
        matches!(self.what, What::Show { .. })
    }
}

/// Runs the command.
pub(crate) fn run(args: &Config, settings: &Settings) -> Result<(), Error> {
    match &args.what {
        What::Show { json } => show(&settings.shown(), *json),
        What::Default => out!("{}", Settings::default().to_toml().trim_end()),
        What::Import { file, output } => import(file, output.as_deref())?,
        What::Domain { domain } => show_domain(domain)?,
    }
    Ok(())
}

fn show(settings: &[Shown], as_json: bool) {
    if as_json {
        let all: Vec<_> = settings.iter().map(in_json).collect();
        out!("{:#}", json!(all));
        return;
    }
    let width = settings.iter().map(|shown| shown.key.len() + shown.toml.len()).filter(|len| *len < 60).max();
    let mut table = "";
    for Shown { table: of, key, toml, origin, .. } in settings {
        if table != *of {
            out!("{}[{of}]", if table.is_empty() { "" } else { "\n" });
            table = of;
        }
        let pad = width.unwrap_or(0).saturating_sub(key.len() + toml.len());
        out!("{key} = {toml}{:pad$}  # {origin}", "");
    }
}

fn show_domain(name: &str) -> Result<(), Error> {
    let context = Context::open()?;
    let domid = context.find(name)?.domain.domid;
    out!("{:#}", context.retrieve(domid)?.value());
    Ok(())
}

fn in_json(Shown { table, key, json: value, origin, .. }: &Shown) -> serde_json::Value {
    let origin = match origin {
        Origin::Default => json!({ "from": "default" }),
        Origin::File(file, line) => json!({ "from": "file", "file": file, "line": line }),
        Origin::CommandLine => json!({ "from": "command line" }),
    };
    json!({ "table": table, "key": key, "value": value, "origin": origin })
}

/// xend's file may be in any encoding: what is no UTF-8 can stand in a comment only, for all that has a meaning here.
fn import(file: &Path, output: Option<&Path>) -> Result<(), Error> {
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).map_err(|error| format!("{} cannot be opened: {error}", file.display()))?;
    opened.take(FILE_LEN_MAX + 1).read_to_end(&mut bytes)?;
    let imported =
        xend::import(&String::from_utf8_lossy(&bytes)).map_err(|error| format!("{}, {error}", file.display()))?;
    match output {
        None => out!("{}", imported.to_toml().trim_end()),
        Some(output) => write_new(output, &imported.to_toml())?,
    }
    tell(&imported.notes);
    Ok(())
}

fn write_new(output: &Path, text: &str) -> Result<(), Error> {
    use std::os::unix::fs::OpenOptionsExt;
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o644).open(output);
    let mut file = opened.map_err(|error| format!("{} cannot be made: {error}", output.display()))?;
    file.write_all(text.as_bytes())?;
    Ok(file.sync_all()?)
}

#[expect(clippy::print_stderr, reason = "the program's messages")]
fn tell(notes: &[xend::Note]) {
    notes.iter().for_each(|note| eprintln!("bascule: {note}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_overwrites_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let (old, new) = (dir.path().join("xend-config.sxp"), dir.path().join("bascule.toml"));
        std::fs::write(&old, b"# \xff\n(xend-relocation-port 8004)\n").expect("a file");
        import(&old, Some(&new)).expect("imported");
        let written = std::fs::read_to_string(&new).expect("a file");
        assert!(Settings::parse(&new, &written).is_ok_and(|settings| settings.relocation.port == 8004));
        assert!(import(&old, Some(&new)).is_err_and(|error| error.to_string().contains("cannot be made")));
        assert_eq!(std::fs::read_to_string(&new).expect("a file"), written);
    }
}
