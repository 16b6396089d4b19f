//! The fuzzer: libFuzzer around the target that `BASCULE_FUZZ` names; its arguments are libFuzzer's. `cargo xtask fuzz` builds it with
//! the compiler's instrumentation and runs it.

#![no_main]

use std::sync::LazyLock;

use bascule_fuzz::{TARGET_VARIABLE, Target};
use libfuzzer_sys::fuzz_target;
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// The most memory that one input may take, in bytes: twice the largest that is meant to be, a journal of 16 MiB.
const INPUT_BYTES_MAX: usize = 32 << 20;

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var(TARGET_VARIABLE).unwrap_or_default();
    bascule_fuzz::target(&name).unwrap_or_else(|| panic!("{TARGET_VARIABLE} names no target: {name:?}"))
});

fuzz_target!(init: LazyLock::force(&TARGET), |input: &[u8]| {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    (TARGET.run)(input);
    let taken = MEMORY.peak_usage().saturating_sub(before);
    assert!(taken <= INPUT_BYTES_MAX, "{} bytes of input took {taken} bytes of memory", input.len());
});
