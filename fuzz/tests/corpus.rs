//! Everything that is kept in `corpus/` passes, without the fuzzer's engine.

use std::fs;
use std::path::Path;

use bascule_fuzz::TARGETS;

#[test]
fn what_the_fuzzer_kept_passes() {
    for target in TARGETS {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
        let kept = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())).flatten();
        let mut fed = 0;
        for entry in kept {
            (target.run)(&fs::read(entry.path()).expect("a file of the corpus"));
            fed += 1;
        }
        assert!(fed > 0, "{} has no example", target.name);
    }
}
