//! The complete file: every table and setting under what it is for.

use super::Config;
use super::tables::{Setting, TABLES};

pub(super) fn file(config: &Config) -> String {
    let mut text = String::from(
        "# Bascule's configuration. Only root may be able to write it. The daemon reads it anew on SIGHUP.\n",
    );
    let mut open = "";
    config.clone().visit(&mut |Setting { table, key, about }, value| {
        if open != table {
            open = table;
            let about = TABLES.iter().find(|(name, _)| *name == table).map_or("", |(_, about)| about);
            text.push_str(&format!("\n{}[{table}]\n", comment(about)));
        }
        text.push_str(&format!("{}{key} = {}\n", comment(about), value.toml()));
    });
    text
}

/// Lines of documentation as a comment.
fn comment(about: &str) -> String {
    about.lines().map(|line| format!("#{line}\n")).collect()
}
