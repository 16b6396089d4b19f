//! The known word that a misspelt one resembles most.

/// The candidate with the fewest letters to change, if these are few enough for a slip of the hand.
pub(crate) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let slips_max = if word.len() <= 4 { 1 } else { 2 };
    let scored = candidates.map(|candidate| (strsim::osa_distance(word, candidate), candidate));
    scored.filter(|(slips, _)| *slips <= slips_max).min().map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_strangers_are_not() {
        let known = || ["memory", "maxmem", "vcpus", "vif", "on_crash"].into_iter();
        for (word, expected) in [("memroy", "memory"), ("vcpu", "vcpus"), ("vifs", "vif"), ("oncrash", "on_crash")] {
            assert_eq!(nearest(word, known()), Some(expected), "{word}");
        }
        for word in ["pci", "vnc", "usbdev", "a"] {
            assert_eq!(nearest(word, known()), None, "{word}");
        }
    }
}
