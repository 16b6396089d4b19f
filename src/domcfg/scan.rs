//! The keys that a file sets. libxlutil has no function that lists them, so its grammar is read once more: outside of
//! strings, comments and lists, a word is a key (libxlu_cfg_l.l and libxlu_cfg_y.y; values are strings, numbers and lists).
//! The text has been parsed by libxlutil before: its errors are no concern here.

/// The keys of a text that libxlutil has parsed, each with its line, in the order in which they stand there.
pub(super) fn keys(text: &str) -> Vec<(String, usize)> {
    let mut scan = Scan { rest: text, line: 1, depth: 0 };
    std::iter::from_fn(|| scan.next_key()).collect()
}

struct Scan<'a> {
    rest: &'a str,
    line: usize,
    /// How many lists are open.
    depth: usize,
}

impl Scan<'_> {
    fn next_key(&mut self) -> Option<(String, usize)> {
        loop {
            match self.rest.chars().next()? {
                quote @ ('"' | '\'') => self.skip_string(quote),
                '#' => drop(self.take(|c| c != '\n')),
                'a'..='z' => {
                    let word = self.take(|c| matches!(c, '.' | '_' | '0'..='9' | 'a'..='z'));
                    if self.depth == 0 {
                        return Some((word, self.line));
                    }
                }
                '0'..='9' => drop(self.take(|c| matches!(c, '0'..='9' | 'a'..='f' | 'x'))),
                other => self.skip_one(other),
            }
        }
    }

    /// A string ends at its quote; a backslash takes the next character with it.
    fn skip_string(&mut self, quote: char) {
        let mut escaped = true; // The opening quote does not end the string.
        self.take(|c| {
            let goes_on = escaped || c != quote;
            escaped = !escaped && c == '\\';
            goes_on
        });
        self.skip_one(quote);
    }

    fn skip_one(&mut self, character: char) {
        match character {
            '\n' => self.line += 1,
            '[' => self.depth += 1,
            ']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        self.rest = self.rest.get(character.len_utf8()..).unwrap_or_default();
    }

    /// Takes as many characters as are wanted.
    fn take(&mut self, mut wanted: impl FnMut(char) -> bool) -> String {
        let end = self.rest.find(|c| !wanted(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        self.line += word.matches('\n').count();
        word.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::xen::xlu;

    fn names(text: &str) -> Vec<String> {
        keys(text).into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn only_keys_are_found() {
        let text = "a='x=1 # no'  # c=1\nb = \"q\\\"r=2\"; c2.d_e=0x1f\nlist = [ 'f=1', # g=1\n  \"h\", [ 'i' ] ]\nlist += ['j']\nk=1";
        assert_eq!(names(text), ["a", "b", "c2.d_e", "list", "list", "k"]);
        assert_eq!(keys(text).last(), Some(&("k".to_owned(), 6)));
    }

    fn value() -> impl Strategy<Value = String> {
        let string = "[ -!#-&(-\\[\\]-~]{0,12}".prop_map(|text| format!("'{text}'"));
        let escaped = Just("\"a\\\" = 'b' \\\\\"".to_owned());
        let atom = prop_oneof![string, escaped, "[0-9][0-9a-f]{0,3}"];
        let list = prop::collection::vec(atom.clone(), 0..4)
            .prop_map(|items| format!("[ # x = 1\n {}\n ]", items.join(",\n")));
        prop_oneof![atom, list]
    }

    fn assignment() -> impl Strategy<Value = (String, String)> {
        ("[a-z][._0-9a-z]{0,8}", value())
    }

    proptest! {
        /// In any text of the grammar, exactly the keys that were written are found, and libxlutil knows each of them.
        #[test]
        fn the_scan_agrees_with_libxlutil(assignments in prop::collection::vec(assignment(), 0..6), end in "(\n|;| # y = 2\n)") {
            let text: String = assignments.iter().map(|(key, value)| format!("{key} = {value}{end}")).collect();
            let config = xlu::Config::parse("t", &text).expect("the generator keeps to the grammar");
            let written: Vec<_> = assignments.into_iter().map(|(key, _)| key).collect();
            prop_assert_eq!(&names(&text), &written);
            for key in written {
                prop_assert!(!matches!((config.string(&key), config.list(&key)), (Ok(None), Ok(None))), "{}", key);
            }
        }

        #[test]
        fn no_text_makes_the_scan_panic_or_loop(text in any::<String>()) {
            prop_assert!(keys(&text).len() <= text.len());
        }
    }
}
