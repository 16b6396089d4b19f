//! The S-expressions of xend's configuration: lists in parentheses, bare and quoted atoms, comments from `#` to the end of the line.
//!
//! Own, because no reader of Lisp's dialects takes these comments and single quotes. Depth and length are bounded, and nothing recurses.

/// The longest text, in bytes.
const TEXT_LEN_MAX: usize = 1 << 20;
/// The most lists within each other.
const DEPTH_MAX: usize = 32;

/// An atom or a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Atom(String),
    List(Vec<Node>),
}

/// Why a text is no sequence of expressions.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct Error {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub what: &'static str,
}

/// All expressions of a text.
pub(super) fn read(text: &str) -> Result<Vec<Node>, Error> {
    let mut reader = Reader { rest: text, line: 1 };
    if text.len() > TEXT_LEN_MAX {
        return Err(reader.error("the file is too long"));
    }
    // The lists that are open, the outermost first; the bottom one is the file.
    let mut open = vec![Vec::new()];
    while let Some(first) = reader.skip() {
        let node = match first {
            '(' if open.len() > DEPTH_MAX => return Err(reader.error("the lists are too deep")),
            '(' => {
                reader.next();
                open.push(Vec::new());
                continue;
            }
            ')' => {
                reader.next();
                let list = open.pop().filter(|_| !open.is_empty());
                Node::List(list.ok_or_else(|| reader.error("a parenthesis is closed that was not opened"))?)
            }
            '"' | '\'' => Node::Atom(reader.quoted()?),
            _ => Node::Atom(reader.bare()),
        };
        open.last_mut().ok_or_else(|| reader.error("a list is not open"))?.push(node);
    }
    match (open.pop(), open.is_empty()) {
        (Some(nodes), true) => Ok(nodes),
        _ => Err(reader.error("a parenthesis is not closed")),
    }
}

struct Reader<'t> {
    rest: &'t str,
    line: usize,
}

impl Reader<'_> {
    fn error(&self, what: &'static str) -> Error {
        Error { line: self.line, what }
    }

    fn next(&mut self) -> Option<char> {
        let first = self.rest.chars().next()?;
        self.rest = &self.rest[first.len_utf8()..];
        self.line += usize::from(first == '\n');
        Some(first)
    }

    /// Passes over blanks and comments; what comes then is looked at only.
    fn skip(&mut self) -> Option<char> {
        loop {
            match self.rest.chars().next()? {
                '#' => while self.next().is_some_and(|passed| passed != '\n') {},
                blank if blank.is_whitespace() => drop(self.next()),
                other => return Some(other),
            }
        }
    }

    fn bare(&mut self) -> String {
        let ends = |c: char| c.is_whitespace() || matches!(c, '(' | ')' | '"' | '\'');
        let (atom, rest) = self.rest.split_at(self.rest.find(ends).unwrap_or(self.rest.len()));
        self.rest = rest;
        atom.to_owned()
    }

    fn quoted(&mut self) -> Result<String, Error> {
        let began = self.line;
        let (quote, mut atom) = (self.next(), String::new());
        loop {
            match self.next() {
                None => return Err(Error { line: began, what: "a quotation mark is not closed" }),
                end if end == quote => return Ok(atom),
                Some('\\') => self.escape(&mut atom)?,
                Some(other) => atom.push(other),
            }
        }
    }

    /// What follows a backslash. One that begins nothing known stays: it is an expression's, as a rule.
    fn escape(&mut self, atom: &mut String) -> Result<(), Error> {
        let escaped = self.next().ok_or_else(|| self.error("a quotation mark is not closed"))?;
        match escaped {
            '\\' | '\'' | '"' => atom.push(escaped),
            'n' => atom.push('\n'),
            't' => atom.push('\t'),
            'r' => atom.push('\r'),
            other => atom.extend(['\\', other]),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn atom(text: &str) -> Node {
        Node::Atom(text.to_owned())
    }

    #[test]
    fn xends_syntax_is_read() {
        let text = "# -*- sh -*-\n(port 8002) # (a b)\n(allow '^a\\\\.b$ \\'')(x \"\" (y\n#)\n z))\n";
        let expected = vec![
            Node::List(vec![atom("port"), atom("8002")]),
            Node::List(vec![atom("allow"), atom("^a\\.b$ '")]),
            Node::List(vec![atom("x"), atom(""), Node::List(vec![atom("y"), atom("z")])]),
        ];
        assert_eq!(read(text), Ok(expected));
        assert_eq!(read(r"'192\.168'"), Ok(vec![atom(r"192\.168")]));
    }

    #[test]
    fn what_is_broken_is_refused_where_it_is() {
        let rows = [("(a", 1), ("\n)", 2), ("(a\n'b", 2), ("'\\", 1), ("(a))", 1)];
        for (text, line) in rows {
            assert_eq!(read(text).map_err(|error| error.line), Err(line), "{text:?}");
        }
    }

    #[test]
    fn hostile_depth_and_length_are_refused() {
        assert!(read(&"(".repeat(1_000_000)).is_err_and(|error| error.what.contains("deep")));
        assert!(read(&"a ".repeat(1_000_000)).is_err_and(|error| error.what.contains("long")));
        assert!(read(&format!("{}{}", "(".repeat(DEPTH_MAX), ")".repeat(DEPTH_MAX))).is_ok());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[()'\"#\\\\ \na-c\\PC]*") {
            let _ = read(&text);
        }
    }
}
