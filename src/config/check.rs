//! A file's text becomes a [`Config`], or everything that is wrong with it.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::tables::{Setting, TABLES};
use super::value::{Wrong, shortened};
use super::{Complaint, Config, Origin};
use crate::nearest::nearest;

/// The most complaints about one file.
const COMPLAINTS_MAX: usize = 100;

pub(super) fn read(file: &Path, text: &str) -> Result<Config, Vec<Complaint>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let syntax = errors.iter().map(|error| (error.span().map_or(0, |span| span.start), error.message().to_owned()));
    let mut wrong: Vec<Wrong> = syntax.collect();
    let mut config = Config::default();
    let (mut known, mut origins) = (Vec::new(), Vec::new());
    config.visit(&mut |Setting { table, key, .. }, value| {
        known.push((table, key));
        let Some(found) = find(document.get_ref(), table, key) else { return };
        origins.push(((table, key), Origin::File(file.to_owned(), line(text, found.span().start))));
        wrong.extend(value.take(found).err().into_iter().flatten());
    });
    strangers(document.get_ref(), "", &known, &mut wrong);
    wrong.extend(contradictions(document.get_ref(), &config));
    config.origins.extend(origins);
    if wrong.is_empty() { Ok(config) } else { Err(complaints(text, wrong)) }
}

/// What is wrong only together.
fn contradictions(document: &DeTable<'_>, config: &Config) -> Option<Wrong> {
    let (_, table) = document.iter().find(|(name, _)| name.get_ref() == "security")?;
    let why = config.security.certificates().err()?;
    Some((table.span().start, format!("[security]: {why}")))
}

fn find<'t, 'i>(document: &'t DeTable<'i>, table: &str, key: &str) -> Option<&'t Spanned<DeValue<'i>>> {
    let inner = table.split('.').try_fold(document, |outer, name| get(outer, name)?.get_ref().as_table())?;
    get(inner, key)
}

fn get<'t, 'i>(table: &'t DeTable<'i>, name: &str) -> Option<&'t Spanned<DeValue<'i>>> {
    table.iter().find(|(key, _)| key.get_ref() == name).map(|(_, value)| value)
}

/// Tables and keys that nobody knows, and keys where a table should be.
fn strangers(table: &DeTable<'_>, path: &str, known: &[(&str, &str)], wrong: &mut Vec<Wrong>) {
    for (key, value) in table.iter().filter(|(key, _)| !known.contains(&(path, key.get_ref()))) {
        let full = if path.is_empty() { key.get_ref().to_string() } else { format!("{path}.{}", key.get_ref()) };
        match (is_table(&full), value.get_ref().as_table()) {
            (true, Some(inner)) => strangers(inner, &full, known, wrong),
            (true, None) => wrong.push((key.span().start, format!("{full} is a table, not a key: [{full}]"))),
            (false, inner) => {
                let what = if inner.is_some() { "table" } else { "key" };
                let there = advice(path, key.get_ref(), known);
                wrong.push((key.span().start, format!("there is no {what} {:?}{there}", shortened(&full))));
            }
        }
    }
}

fn is_table(path: &str) -> bool {
    TABLES
        .iter()
        .any(|(table, _)| table.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
}

/// The known word of this table that is meant; else the table that has this key; else what there is.
fn advice(path: &str, word: &str, known: &[(&str, &str)]) -> String {
    let keys = known.iter().filter(|(table, _)| *table == path).map(|(_, key)| *key);
    let inside = |table: &'static str| match path {
        "" => Some(table),
        _ => table.strip_prefix(path)?.strip_prefix('.'),
    };
    let tables = TABLES.iter().filter_map(|(table, _)| inside(table)?.split('.').next());
    let mut here: Vec<&str> = keys.chain(tables).collect();
    here.dedup();
    if let Some(near) = nearest(word, here.iter().copied()) {
        return format!(", did you mean {near}?");
    }
    match known.iter().find(|(_, key)| *key == word) {
        Some((table, key)) => format!(", did you mean {key} in [{table}]?"),
        None => format!("; there are {}", here.join(", ")),
    }
}

fn complaints(text: &str, wrong: Vec<Wrong>) -> Vec<Complaint> {
    let located = wrong.into_iter().map(|(at, what)| Complaint { line: line(text, at), what });
    let mut complaints: Vec<Complaint> = located.collect();
    complaints.sort();
    complaints.dedup();
    let more = complaints.len().saturating_sub(COMPLAINTS_MAX);
    complaints.truncate(COMPLAINTS_MAX);
    if let (1.., Some(last)) = (more, complaints.last()) {
        complaints.push(Complaint { line: last.line, what: format!("and {more} more") });
    }
    complaints
}

/// The line of a byte, from 1.
fn line(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}
