use std::fs;
use std::path::Path;

use bascule::journal::{Done, Journal};

use super::*;

/// The library's sample: a finished migration of vm0 to node2.
const FINISHED: &str = include_str!("../../journal/samples/finished.journal");
const ID: &str = "6f1c5b1e-3d0a-4c57-9b5e-2f6a1d0c9e77";

fn finished(dir: &Path) {
    fs::write(dir.join(format!("{ID}.journal")), FINISHED).unwrap();
}

/// Another migration of the same domain, back, which nobody has finished.
fn incoming(dir: &Path, id: &str) -> Journal {
    let head = journal::read(dir, ID.parse().unwrap()).unwrap().unwrap().head;
    Journal::create(dir, Head { id: id.parse().unwrap(), side: Side::Incoming, ..head }).unwrap()
}

fn listed(dir: &Path) -> Vec<Listed> {
    let mut all = journal::list(dir).unwrap();
    all.reverse();
    all
}

/// Each line of the table, single-spaced.
fn rows(all: &[Listed]) -> Vec<String> {
    let text = table(all, digits(all)).trim_fmt();
    text.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn a_row_says_how_a_migration_ended_or_who_works_on_it() {
    let dir = tempfile::tempdir().unwrap();
    finished(dir.path());
    let journal = incoming(dir.path(), "6f1c5b1e-3d00-4000-8000-000000000000");
    let moved = "2026-11-23 00:45:12 vm0 to node2 moved 0.301 s 13.654 s 6f1c5b1e-3d0a";
    let all = listed(dir.path());
    assert!(rows(&all).contains(&moved.to_owned()), "{:?}", rows(&all));
    assert!(rows(&all).iter().any(|row| row.contains("vm0 from node2 open, ") && row.contains(" works on it ")));
    drop(journal);
    let orphan = "open, nobody works on it: bascule recover 6f1c5b1e-3d00";
    assert!(rows(&listed(dir.path())).iter().any(|row| row.contains(orphan)));
}

#[test]
fn an_id_may_be_shortened_as_long_as_it_names_one() {
    let dir = tempfile::tempdir().unwrap();
    finished(dir.path());
    drop(incoming(dir.path(), "6f1c5b1e-3d00-4000-8000-000000000000"));
    let all = listed(dir.path());
    assert_eq!(digits(&all), "6f1c5b1e-3d00".len());
    assert_eq!(find(&all, "6F1C5B1E-3D0A").unwrap().id.to_string(), ID);
    assert!(find(&all, "6f1c").unwrap_err().to_string().starts_with("The ids of 2 migrations"));
    assert!(find(&all, "7").unwrap_err().to_string().starts_with("No migration's id"));
}

#[test]
fn a_story_is_told_record_by_record() {
    let dir = tempfile::tempdir().unwrap();
    finished(dir.path());
    let all = listed(dir.path());
    let Ok(story) = &all[0].story else { panic!("it can be read") };
    let told = lines(&all[0], story, SHORT_MIN);
    assert_eq!(told[0], "vm0 to node2: moved");
    let records = &told[told.iter().position(String::is_empty).unwrap() + 1..];
    assert_eq!(records[0], "  2026-11-23T00:45:12.345678Z  open");
    let released = "single-primary; r0/0 written 8192, sent 8000, received 16 sectors";
    assert_eq!(records[1], format!("  2026-11-23T00:45:19.000250Z  released  {released}"));
    assert_eq!(records[4], "  2026-11-23T00:45:25.999999Z  done      moved: node2 owns it");
}

#[test]
fn json_has_all_of_it_and_what_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    finished(dir.path());
    let whole = as_json(&listed(dir.path())[0]);
    assert_eq!(whole["stage"], json!({ "done": "moved" }));
    assert_eq!((&whole["held"], &whole["story"]["head"]["name"]), (&json!(false), &json!("vm0")));
    assert_eq!(whole["story"]["entries"][1], json!({ "at": "2026-11-23T00:45:19.212Z", "record": "go" }));
    let Ok(story) = &listed(dir.path())[0].story else { panic!("it can be read") };
    assert!(matches!(story.stage(), Stage::Done(Done::Moved)));
    fs::write(dir.path().join(format!("{ID}.journal")), "?").unwrap();
    let damaged = as_json(&listed(dir.path())[0]);
    assert!(damaged["error"].as_str().unwrap().contains("is damaged in line 1"), "{damaged}");
    assert_eq!(rows(&listed(dir.path())).len(), 2);
}
