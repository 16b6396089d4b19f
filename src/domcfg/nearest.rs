//! The known word that a misspelt one resembles most.

/// The candidate with the fewest letters to change, if these are few enough for a slip of the hand.
pub(super) fn nearest(word: &str, candidates: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let slips_max = if word.len() <= 4 { 1 } else { 2 };
    let scored = candidates.map(|candidate| (distance(word.as_bytes(), candidate.as_bytes()), candidate));
    scored.filter(|(slips, _)| *slips <= slips_max).min().map(|(_, candidate)| candidate)
}

/// Letters to insert, delete or replace until one is the other (Levenshtein).
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = replaced.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
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

    #[test]
    fn distances_are_right() {
        let distances = [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("abc", "", 3)];
        for (a, b, expected) in distances {
            assert_eq!(distance(a.as_bytes(), b.as_bytes()), expected);
        }
    }
}
