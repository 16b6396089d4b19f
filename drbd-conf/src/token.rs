//! The words of a configuration file (drbd-utils, user/v9/drbdadm_scanner.fl).
//!
//! The longest text that is something wins, so `10.0.0.1` is an address and `10.0.0.1a` is a word. A word that is a keyword of the
//! grammar is no name; between quotation marks it is. Bytes are looked at, never characters: the files have no encoding.

/// The longest bare word, in bytes.
const WORD_MAX: usize = 128;
/// The most units (a byte, or a backslash and a byte) between quotation marks.
const QUOTED_MAX: usize = 255;
/// The most digits of a number.
const DIGITS_MAX: usize = 8;
/// The longest address of IPv6, in bytes: thirteen groups, as the grammar has it, and their colons.
const IPV6_MAX: usize = 13 * 5;

/// Words that cannot be names, unless quoted.
const KEYWORDS: &[&str] = &[
    "_is_standalone",
    "_peer_node_id",
    "_remote_host",
    "_this_host",
    "address",
    "ask",
    "cmd-timeout-long",
    "cmd-timeout-medium",
    "cmd-timeout-short",
    "common",
    "connection",
    "connection-mesh",
    "device",
    "dialog-refresh",
    "disable-ip-verification",
    "disk",
    "flexible-meta-disk",
    "floating",
    "global",
    "handlers",
    "host",
    "hosts",
    "include",
    "inside",
    "ipv4",
    "ipv6",
    "meta-disk",
    "minor",
    "minor-count",
    "net",
    "no",
    "node-id",
    "on",
    "options",
    "outside",
    "path",
    "port",
    "proxy",
    "require-drbd-module-version-eq",
    "require-drbd-module-version-ge",
    "require-drbd-module-version-gt",
    "require-drbd-module-version-le",
    "require-drbd-module-version-lt",
    "require-drbd-module-version-ne",
    "resource",
    "sci",
    "sdp",
    "skip",
    "ssocks",
    "stacked-on-top-of",
    "startup",
    "syncer",
    "template-file",
    "udev-always-use-vnr",
    "usage-count",
    "via",
    "volume",
    "yes",
];

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A bare word, which may be a keyword.
    Word,
    /// A text between quotation marks, without them.
    Quoted,
    /// Digits, and perhaps a unit.
    Integer,
    /// Four numbers with points.
    Ipv4,
    /// Groups with colons, and perhaps a scope.
    Ipv6,
    /// Three numbers with points.
    Version,
    /// One of `{ } ; [ ] :`.
    Punctuation(u8),
    /// A word or a quoted text that is too long.
    TooLong,
    /// A quoted text that the line ends in.
    Unterminated,
    /// A byte that nothing begins with.
    Other,
    /// The end of the file.
    End,
}

/// A token and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    /// What it says; of a quoted one, what is meant.
    pub(crate) text: String,
    pub(crate) line: u32,
}

impl Token {
    /// Whether it is that keyword, or that word where the grammar asks for one.
    pub(crate) fn is(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text == word
    }

    pub(crate) fn is_punctuation(&self, byte: u8) -> bool {
        self.kind == Kind::Punctuation(byte)
    }

    /// Whether it can be a name, a path or a value.
    pub(crate) fn is_string(&self) -> bool {
        match self.kind {
            Kind::Quoted => true,
            Kind::Word => KEYWORDS.binary_search(&self.text.as_str()).is_err(),
            _ => false,
        }
    }
}

/// The tokens of one file.
#[derive(Debug)]
pub(crate) struct Tokens {
    bytes: Vec<u8>,
    at: usize,
    line: u32,
}

impl Tokens {
    pub(crate) fn new(bytes: Vec<u8>) -> Tokens {
        Tokens { bytes, at: 0, line: 1 }
    }

    /// The next token; at the end of the file [`Kind::End`], again and again.
    pub(crate) fn next(&mut self) -> Token {
        self.skip_blanks();
        let rest = &self.bytes[self.at..];
        let (kind, len) = match rest {
            [] => (Kind::End, 0),
            [b'"', ..] => quoted(rest),
            [first, ..] => longest(*first, rest),
        };
        let text = match kind {
            Kind::Quoted => unescaped(&rest[..len]),
            _ => String::from_utf8_lossy(&rest[..len]).into_owned(),
        };
        self.at += len;
        Token { kind, text, line: self.line }
    }

    fn skip_blanks(&mut self) {
        let mut comment = false;
        while let Some(byte) = self.bytes.get(self.at) {
            match byte {
                b'\n' => (self.line, comment) = (self.line.saturating_add(1), false),
                b'#' => comment = true,
                b' ' | b'\t' | b'\r' => {}
                _ if comment => {}
                _ => return,
            }
            self.at += 1;
        }
    }
}

fn longest(first: u8, rest: &[u8]) -> (Kind, usize) {
    let word = rest.iter().take(WORD_MAX + 1).take_while(|byte| is_of_word(**byte)).count();
    let address = ipv6(rest);
    match (word, address) {
        (word, address) if address > word => (Kind::Ipv6, address),
        (0, _) if matches!(first, b'{' | b'}' | b';' | b'[' | b']' | b':') => (Kind::Punctuation(first), 1),
        (0, _) => (Kind::Other, 1),
        (word, _) if word > WORD_MAX => (Kind::TooLong, word),
        (word, _) => (kind_of(&rest[..word]), word),
    }
}

fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'_' | b'-')
}

fn kind_of(word: &[u8]) -> Kind {
    let parts: Vec<&[u8]> = word.split(|byte| *byte == b'.').collect();
    let all_digits = parts.iter().all(|part| !part.is_empty() && part.iter().all(u8::is_ascii_digit));
    match parts.len() {
        4 if all_digits && parts.iter().all(|part| part.len() <= 3) => Kind::Ipv4,
        3 if all_digits => Kind::Version,
        1 if is_integer(word) => Kind::Integer,
        _ => Kind::Word,
    }
}

fn is_integer(word: &[u8]) -> bool {
    let digits = word.strip_suffix(b"K").or_else(|| word.strip_suffix(b"M")).or_else(|| word.strip_suffix(b"G"));
    let digits = digits.or_else(|| word.strip_suffix(b"s")).unwrap_or(word);
    (1..=DIGITS_MAX).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit)
}

/// The length of the address of IPv6 that the text begins with; 0 where it begins with none.
fn ipv6(rest: &[u8]) -> usize {
    let span = rest.iter().take(IPV6_MAX).take_while(|byte| byte.is_ascii_hexdigit() || **byte == b':').count();
    if !rest[..span].contains(&b':') {
        return 0;
    }
    let plain = (2..=span).rev().find(|len| is_ipv6(&rest[..*len])).unwrap_or(0);
    let scoped = match rest.get(plain..) {
        Some([b'%', scope @ ..]) if plain > 0 => {
            let word = scope.iter().take(WORD_MAX).take_while(|byte| is_of_word(**byte)).count();
            if word > 0 { plain + 1 + word } else { plain }
        }
        _ => plain,
    };
    scoped.max(mapped(rest))
}

/// At most six groups, a colon, at most one group, a colon, at most six groups: what the grammar takes for an address.
fn is_ipv6(text: &[u8]) -> bool {
    let parts: Vec<&[u8]> = text.split(|byte| *byte == b':').collect();
    let groups = |parts: &[&[u8]]| match parts {
        [[]] => true,
        parts => parts.len() <= 6 && parts.iter().all(|part| (1..=4).contains(&part.len())),
    };
    (1..parts.len().saturating_sub(1))
        .any(|middle| parts[middle].len() <= 4 && groups(&parts[..middle]) && groups(&parts[middle + 1..]))
}

/// An address of IPv4 in IPv6's clothes, `::ffff:10.0.0.1`.
fn mapped(rest: &[u8]) -> usize {
    let prefix = rest.get(..7).is_some_and(|prefix| prefix.eq_ignore_ascii_case(b"::ffff:"));
    if !prefix {
        return 0;
    }
    let span = rest[7..].iter().take(15).take_while(|byte| byte.is_ascii_digit() || **byte == b'.').count();
    let found = (7..=span).rev().find(|len| kind_of(&rest[7..7 + len]) == Kind::Ipv4);
    found.map_or(0, |len| 7 + len)
}

fn quoted(rest: &[u8]) -> (Kind, usize) {
    let mut at = 1;
    for _ in 0..=QUOTED_MAX {
        match rest.get(at) {
            Some(b'"') => return (Kind::Quoted, at + 1),
            None | Some(b'\n') => return (Kind::Unterminated, at),
            Some(b'\\') if matches!(rest.get(at + 1), None | Some(b'\n')) => return (Kind::Unterminated, at + 1),
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
        }
    }
    (Kind::TooLong, at)
}

/// What is meant by a quoted text: quotation marks go, and of a backslash and a byte the byte stays.
fn unescaped(quoted: &[u8]) -> String {
    let mut meant = Vec::with_capacity(quoted.len());
    let mut bytes = quoted.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => {}
            b'\\' => meant.extend(bytes.next()),
            other => meant.push(*other),
        }
    }
    String::from_utf8_lossy(&meant).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<(Kind, String)> {
        let mut tokens = Tokens::new(text.as_bytes().to_vec());
        let tokens = std::iter::from_fn(|| Some(tokens.next()).filter(|token| token.kind != Kind::End));
        tokens.map(|token| (token.kind, token.text)).collect()
    }

    fn kinds(text: &str) -> Vec<Kind> {
        all(text).into_iter().map(|(kind, _)| kind).collect()
    }

    #[test]
    fn the_longest_wins() {
        let rows = [
            ("10.0.0.1", Kind::Ipv4),
            ("10.0.0.1a", Kind::Word),
            ("1000.0.0.1", Kind::Word),
            ("9.0.1", Kind::Version),
            ("7788", Kind::Integer),
            ("10M", Kind::Integer),
            ("10m", Kind::Word),
            ("123456789", Kind::Word),
            ("/dev/drbd0", Kind::Word),
            ("fd00:1:2:3:4:5:6:7", Kind::Ipv6),
            ("fe80::1%eth0", Kind::Ipv6),
            ("::", Kind::Ipv6),
            ("::ffff:10.0.0.1", Kind::Ipv6),
            ("\"a b\"", Kind::Quoted),
            ("@", Kind::Other),
        ];
        for (text, kind) in rows {
            assert_eq!(kinds(text), [kind], "{text}");
        }
        assert_eq!(
            kinds("10.0.0.1:7788;"),
            [Kind::Ipv4, Kind::Punctuation(b':'), Kind::Integer, Kind::Punctuation(b';')]
        );
        assert_eq!(
            kinds("[::1]:7"),
            [Kind::Punctuation(b'['), Kind::Ipv6, Kind::Punctuation(b']'), Kind::Punctuation(b':'), Kind::Integer]
        );
    }

    #[test]
    fn quotation_marks_and_backslashes_go() {
        assert_eq!(all(r#""a \"b\" \\c""#), [(Kind::Quoted, r#"a "b" \c"#.to_owned())]);
        assert_eq!(kinds("\"a\nb\""), [Kind::Unterminated, Kind::Word, Kind::Unterminated]);
        assert_eq!(kinds(&format!("\"{}\"", "x".repeat(255))), [Kind::Quoted]);
        assert_eq!(kinds(&format!("\"{}\"", "x".repeat(256)))[0], Kind::TooLong);
        assert_eq!(kinds(&"x".repeat(128)), [Kind::Word]);
        assert_eq!(kinds(&"x".repeat(129)), [Kind::TooLong]);
    }

    #[test]
    fn lines_are_counted_and_comments_go() {
        let mut tokens = Tokens::new(b"a # b {\n\n c".to_vec());
        assert_eq!((tokens.next().line, tokens.next().line, tokens.next().kind), (1, 3, Kind::End));
    }

    #[test]
    fn keywords_are_no_names_unless_quoted() {
        assert!(KEYWORDS.is_sorted());
        let token = |text: &str| Tokens::new(text.as_bytes().to_vec()).next();
        assert!(!token("disk").is_string() && token("\"disk\"").is_string() && token("protocol").is_string());
    }
}
