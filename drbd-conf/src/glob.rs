//! The patterns of `include`, as glob(7) has them: `*`, `?` and `[…]`, in any part of a path; a leading point must be written.
//!
//! Nothing recurses, and the names that are looked at are bounded by the directories themselves and by [`FOUND_MAX`].

use std::path::{Component, Path, PathBuf};

/// The most paths that one pattern may stand for.
pub(crate) const FOUND_MAX: usize = 4096;

/// Whether a text is a pattern rather than a name.
pub(crate) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// The paths that a pattern stands for, in the order of their bytes, and whether there were more than [`FOUND_MAX`].
///
/// `list` gives the names in a directory, and nothing where it is none.
pub(crate) fn expand(pattern: &Path, list: &dyn Fn(&Path) -> Vec<String>) -> (Vec<PathBuf>, bool) {
    let mut found = vec![PathBuf::new()];
    for part in pattern.components() {
        let wanted = match part {
            Component::Normal(name) => name.to_string_lossy().into_owned(),
            other => {
                found.iter_mut().for_each(|path| path.push(other));
                continue;
            }
        };
        found = found.iter().flat_map(|directory| step(directory, &wanted, list)).take(FOUND_MAX + 1).collect();
    }
    let more = found.len() > FOUND_MAX;
    found.truncate(FOUND_MAX);
    found.sort();
    (found, more)
}

fn step(directory: &Path, wanted: &str, list: &dyn Fn(&Path) -> Vec<String>) -> Vec<PathBuf> {
    if !is_pattern(wanted) {
        return vec![directory.join(wanted)];
    }
    let names = list(directory).into_iter().filter(|name| matches(wanted, name));
    names.take(FOUND_MAX + 1).map(|name| directory.join(name)).collect()
}

/// Whether a name fits a pattern of one part. The usual walk that goes back to the last `*` only: quadratic at worst.
fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut at, mut in_name, mut star) = (0, 0, None);
    while in_name < name.len() {
        if pattern.get(at) == Some(&'*') {
            star = Some((at + 1, in_name));
            at += 1;
            continue;
        }
        match one(&pattern[at..], name[in_name]) {
            Some(width) => (at, in_name) = (at + width, in_name + 1),
            None => match star {
                Some((after, taken)) => {
                    star = Some((after, taken + 1));
                    (at, in_name) = (after, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|rest| *rest == '*')
}

/// How many characters of the pattern stand for this one; `None` where they do not.
fn one(pattern: &[char], c: char) -> Option<usize> {
    match pattern {
        ['?', ..] => Some(1),
        ['[', rest @ ..] => class(rest, c),
        [first, ..] => (*first == c).then_some(1),
        [] => None,
    }
}

/// `[…]` without its bracket. One that is not closed stands for itself.
fn class(rest: &[char], c: char) -> Option<usize> {
    let negated = matches!(rest.first(), Some('!' | '^'));
    let first = usize::from(negated);
    let closed = rest.iter().skip(first + 1).position(|end| *end == ']').map(|end| end + first + 1);
    let Some(end) = closed else { return (c == '[').then_some(1) };
    let (mut inside, mut listed) = (&rest[first..end], false);
    while let [from, after @ ..] = inside {
        let (to, next) = match after {
            ['-', to, next @ ..] => (to, next),
            _ => (from, after),
        };
        listed |= (*from..=*to).contains(&c);
        inside = next;
    }
    (listed != negated).then_some(end + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_as_in_a_shell() {
        let fits = [("*.res", "a.res"), ("*", "x"), ("a*b*c", "axxbybc"), ("?.res", "b.res"), ("[a-c].r", "b.r")];
        for (pattern, name) in fits {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        let unfit = [
            ("*.res", "a.res~"),
            ("*.res", ".a.res"),
            ("[!a]", "a"),
            ("[ab", "a"),
            ("?", ""),
            ("a", "ab"),
            ("a*b", "a"),
        ];
        for (pattern, name) in unfit {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
        assert!(matches("[]x]", "]") && matches("[ab", "[ab") && matches("[!a]", "b") && matches(".*", ".a"));
    }

    #[test]
    fn a_pattern_in_the_middle_is_followed() {
        let list = |directory: &Path| match directory.to_str() {
            Some("/etc") => vec!["b.d".to_owned(), "a.d".to_owned(), "c".to_owned()],
            Some("/etc/a.d" | "/etc/b.d") => vec!["2.res".to_owned(), "1.res".to_owned()],
            _ => Vec::new(),
        };
        let (found, more) = expand(Path::new("/etc/*.d/*.res"), &list);
        let found: Vec<_> = found.iter().map(|path| path.display().to_string()).collect();
        assert_eq!(found, ["/etc/a.d/1.res", "/etc/a.d/2.res", "/etc/b.d/1.res", "/etc/b.d/2.res"]);
        assert!(!more);
    }

    #[test]
    fn a_hostile_pattern_takes_no_time() {
        assert!(!matches(&"*a".repeat(2000), &"a".repeat(1999)));
        assert!(!matches(&"[".repeat(5000), &"[".repeat(4999)));
    }
}
