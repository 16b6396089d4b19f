//! `bascule serve --check`: what the daemon needs, and whether it is there.

use bascule::config::Config;
use bascule::daemon::check::{Looked, check};
use bascule::host;

use super::super::exit::Error;
use super::super::settings::Source;

/// Looks, prints, and fails if there is a problem.
pub(super) fn run(config: &Config, source: &Source, json: bool) -> Result<(), Error> {
    let (listen, mut looked) = match super::listen(&config.relocation) {
        Ok(listen) if listen.is_empty() => (listen, vec![Looked::ok("relocation", "not enabled: no port is served")]),
        Ok(listen) => (listen, Vec::new()),
        Err(error) => (Vec::new(), vec![Looked::problem("relocation", error.to_string(), "bascule config show")]),
    };
    looked.insert(0, Looked::ok("configuration", source.described()));
    looked.extend(check(config, host::RUN_DIR.as_ref(), &listen));
    match json {
        true => out!("{}", serde_json::to_string_pretty(&looked)?),
        false => looked.iter().for_each(print),
    }
    match looked.iter().filter(|looked| !looked.ok).count() {
        0 => Ok(()),
        1 => Err("The daemon could not serve as it should: there is a problem".into()),
        problems => Err(format!("The daemon could not serve as it should: there are {problems} problems").into()),
    }
}

fn print(Looked { what, ok, found, remedy }: &Looked) {
    out!("{:7}  {what}: {found}", if *ok { "ok" } else { "problem" });
    if let Some(remedy) = remedy {
        out!("         -> {remedy}");
    }
}
