//! Everything that is kept in `corpus/` passes, without the fuzzer's engine.

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

use bascule_fuzz::{TARGETS, Target};

#[test]
fn what_the_fuzzer_kept_passes() {
    let fails = |target: &&Target| catch_unwind(|| feed(target)).is_err();
    let failed: Vec<&str> = TARGETS.iter().filter(fails).map(|target| target.name).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

fn feed(target: &Target) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let kept = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let files: Vec<_> = kept.flatten().map(|entry| entry.path()).collect();
    assert!(!files.is_empty(), "{} has no example", target.name);
    files.iter().for_each(|file| (target.run)(&fs::read(file).expect("a file of the corpus")));
}
