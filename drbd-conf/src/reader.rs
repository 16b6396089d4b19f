//! The reader: tokens of the file that is open, what the grammar expects of them, and how to go on after a mistake.
//!
//! Each section is a loop over its statements ([`Reader::section`]). A statement that cannot be read is told, passed over, and the
//! section goes on: so all mistakes are found in one reading. The grammar is finitely deep, so nothing recurses but `include`, which
//! has a bound.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::files::Files;
use crate::glob;
use crate::model::{Config, Node};
use crate::place::{Mistakes, Place, shown, shown_path};
use crate::token::{Kind, Token, Tokens};

/// The most bytes of all files together.
const TEXT_MAX: usize = 4 << 20;
/// The most files.
const FILES_MAX: usize = 4096;
/// The most files that include each other.
const DEPTH_MAX: usize = 16;

/// A statement cannot be read; it has been told why. The token is the one that does not fit, for who goes on.
#[derive(Debug)]
pub(crate) struct Failed(Token);

/// What reading a statement gives.
pub(crate) type Step<T> = Result<T, Failed>;

/// What may be there once only, and where it was first.
pub(crate) type Claims = HashMap<String, Place>;

pub(crate) struct Reader<'f> {
    files: &'f dyn Files,
    pub(crate) node: &'f Node,
    pub(crate) mistakes: Mistakes,
    pub(crate) remarks: Mistakes,
    source: Source,
    seen: HashSet<PathBuf>,
    depth: usize,
    text_left: usize,
    /// A template is being read, which has none itself.
    pub(crate) in_template: bool,
    /// Names, devices and sections, each of which may be there once in all files.
    pub(crate) claims: Claims,
    /// The same for the resource that is being read.
    pub(crate) resource_claims: Claims,
    pub(crate) config: Config,
    /// Resources with a mistake in them: there, but not to be judged any further.
    pub(crate) broken: HashSet<String>,
}

/// The file that is open.
struct Source {
    path: Arc<Path>,
    tokens: Tokens,
    /// A token that was looked at and belongs to whoever comes next.
    pushed: Option<Token>,
    /// It has been told that the file ends too early.
    cut: bool,
}

impl Source {
    fn new(path: &Path, bytes: Vec<u8>) -> Source {
        Source { path: path.into(), tokens: Tokens::new(bytes), pushed: None, cut: false }
    }
}

impl<'f> Reader<'f> {
    pub(crate) fn new(files: &'f dyn Files, node: &'f Node) -> Reader<'f> {
        Reader {
            files,
            node,
            mistakes: Mistakes::default(),
            remarks: Mistakes::default(),
            source: Source::new(Path::new(""), Vec::new()),
            seen: HashSet::new(),
            depth: 0,
            text_left: TEXT_MAX,
            in_template: false,
            claims: Claims::new(),
            resource_claims: Claims::new(),
            config: Config::default(),
            broken: HashSet::new(),
        }
    }

    // Files.

    /// Reads a file by `body`, unless it was read before; then the one that was open goes on. `because` is the place that names it.
    pub(crate) fn within(&mut self, path: &Path, because: &Place, body: fn(&mut Reader<'f>)) {
        let real = self.files.real(path);
        if self.seen.contains(&real) {
            return;
        }
        let refused = if self.depth >= DEPTH_MAX {
            Some(format!("{} would be included too deeply", shown_path(path)))
        } else if self.seen.len() >= FILES_MAX {
            Some(format!("there are more than {FILES_MAX} files"))
        } else {
            None
        };
        if let Some(refused) = refused {
            return self.mistakes.add(because, refused);
        }
        self.seen.insert(real);
        self.open(path, because, body);
    }

    fn open(&mut self, path: &Path, because: &Place, body: fn(&mut Reader<'f>)) {
        let bytes = match self.files.read(path, self.text_left) {
            Ok(bytes) => bytes,
            Err(why) => return self.mistakes.add(because, format!("{} cannot be read: {why}", shown_path(path))),
        };
        self.text_left -= bytes.len().min(self.text_left);
        self.config.files.push(path.to_owned());
        let outer = mem::replace(&mut self.source, Source::new(path, bytes));
        self.depth += 1;
        body(self);
        self.depth -= 1;
        self.source = outer;
    }

    /// Reads a file whether or not it was read before: a template is no part of the whole.
    pub(crate) fn within_template(&mut self, path: &Path, because: &Place, body: fn(&mut Reader<'f>)) {
        match self.config.files.len() < FILES_MAX {
            true => self.open(path, because, body),
            false => self.mistakes.add(because, format!("there are more than {FILES_MAX} files")),
        }
    }

    /// What a name within the open file means: it counts from that file's directory.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        let real = self.files.real(&self.source.path);
        real.parent().unwrap_or(Path::new("")).join(name)
    }

    pub(crate) fn include(&mut self, pattern: &str, place: &Place, body: fn(&mut Reader<'f>)) {
        let path = self.beside(pattern);
        if !glob::is_pattern(pattern) {
            return self.within(&path, place, body);
        }
        let (found, more) = glob::expand(&path, &|directory| self.files.names(directory));
        if more {
            self.mistakes.add(place, format!("{} stands for more than {} files", shown(pattern), glob::FOUND_MAX));
        }
        found.iter().for_each(|path| self.within(path, place, body));
    }

    // Tokens.

    pub(crate) fn next(&mut self) -> Token {
        self.source.pushed.take().unwrap_or_else(|| self.source.tokens.next())
    }

    pub(crate) fn push_back(&mut self, token: Token) {
        self.source.pushed = Some(token);
    }

    pub(crate) fn place(&self, line: u32) -> Place {
        Place { file: Arc::clone(&self.source.path), line }
    }

    pub(crate) fn punctuation(&mut self, byte: u8) -> Step<()> {
        let token = self.next();
        match token.is_punctuation(byte) {
            true => Ok(()),
            false => Err(self.unexpected(token, &format!("'{}'", char::from(byte)))),
        }
    }

    pub(crate) fn string(&mut self, wanted: &str) -> Step<String> {
        let token = self.next();
        match token.is_string() {
            true => Ok(token.text),
            false => Err(self.unexpected(token, wanted)),
        }
    }

    /// A number from 0 to `max`; a unit that follows it means nothing here.
    pub(crate) fn integer(&mut self, wanted: &str, max: u32) -> Step<u32> {
        let token = self.next();
        if token.kind != Kind::Integer {
            return Err(self.unexpected(token, wanted));
        }
        let digits = token.text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let number = digits.parse().unwrap_or(u32::MAX);
        if number > max {
            self.wrong(token.line, format!("{wanted} {} is more than {max}", token.text));
        }
        Ok(number.min(max))
    }

    /// Names up to a punctuation; at least one.
    pub(crate) fn names(&mut self, end: u8) -> Step<Vec<String>> {
        let mut names = Vec::new();
        loop {
            let token = self.next();
            match token.is_string() {
                true => names.push(token.text),
                false if token.is_punctuation(end) && !names.is_empty() => return Ok(names),
                false => return Err(self.unexpected(token, "the name of a host")),
            }
        }
    }

    // Mistakes.

    pub(crate) fn wrong(&mut self, line: u32, what: impl Into<String>) {
        let place = self.place(line);
        self.mistakes.add(&place, what);
    }

    pub(crate) fn remark(&mut self, line: u32, what: impl Into<String>) {
        let place = self.place(line);
        self.remarks.add(&place, what);
    }

    /// Tells that another token was wanted.
    pub(crate) fn unexpected(&mut self, token: Token, wanted: &str) -> Failed {
        let what = match token.kind {
            Kind::End => return self.cut_short(token, wanted),
            Kind::TooLong => format!("{} is too long: 128 bytes bare, 255 between quotation marks", shown(&token.text)),
            Kind::Unterminated => "a quotation mark is not closed on its line".to_owned(),
            _ if token.kind == Kind::Word && !token.is_string() => {
                format!("{wanted} is expected, not the keyword {} (a name like that needs quotation marks)", token.text)
            }
            _ => format!("{wanted} is expected, not {}", shown(&token.text)),
        };
        self.wrong(token.line, what);
        Failed(token)
    }

    fn cut_short(&mut self, token: Token, wanted: &str) -> Failed {
        if !mem::replace(&mut self.source.cut, true) {
            self.wrong(token.line, format!("the file ends where {wanted} is expected"));
        }
        Failed(token)
    }

    /// Takes something that may be there once only.
    pub(crate) fn claim_in_resource(&mut self, what: &str, key: String, line: u32) {
        let place = self.place(line);
        claim(&mut self.resource_claims, &mut self.mistakes, what, key, &place);
    }

    // Sections.

    /// Reads the statements of a section up to its brace. `each` has a statement's first token; what it leaves unread after a mistake
    /// is passed over.
    pub(crate) fn section(&mut self, mut each: impl FnMut(&mut Self, Token) -> Step<()>) {
        loop {
            let token = self.next();
            match token.kind {
                Kind::Punctuation(b'}') => return,
                Kind::End => {
                    let _ = self.cut_short(token, "'}'");
                    return;
                }
                _ => {}
            }
            if let Err(Failed(token)) = each(self, token) {
                self.pass_over(token);
            }
        }
    }

    /// Passes over the rest of a statement: up to its semicolon or the end of its braces, but not beyond the section.
    pub(crate) fn pass_over(&mut self, mut token: Token) {
        let mut depth = 0u32;
        loop {
            match token.kind {
                Kind::End => return self.push_back(token),
                Kind::Punctuation(b'}') if depth == 0 => return self.push_back(token),
                Kind::Punctuation(b'}') if depth == 1 => return,
                Kind::Punctuation(b'}') => depth -= 1,
                Kind::Punctuation(b'{') => depth += 1,
                Kind::Punctuation(b';') if depth == 0 => return,
                _ => {}
            }
            token = self.next();
        }
    }

    /// What a failed statement left, where no section goes on.
    pub(crate) fn give_up(&mut self, Failed(token): Failed) {
        self.pass_over(token);
    }

    /// `skip`: whatever it is, up to the end of its braces.
    pub(crate) fn skip(&mut self, line: u32) {
        self.remark(line, "what is marked with skip is ignored");
        let mut depth = 0u32;
        loop {
            let token = self.next();
            match token.kind {
                Kind::Punctuation(b'{') => depth += 1,
                Kind::Punctuation(b'}') if depth == 1 => return,
                Kind::Punctuation(b'}') => depth = depth.saturating_sub(1),
                Kind::End => {
                    self.wrong(line, "the file ends within this skip");
                    self.source.cut = true;
                    return self.push_back(token);
                }
                _ => {}
            }
        }
    }
}

/// Notes where something is, or tells that it is elsewhere already.
pub(crate) fn claim(claims: &mut Claims, mistakes: &mut Mistakes, what: &str, key: String, place: &Place) {
    match claims.get(&key) {
        Some(first) => mistakes.add(place, format!("{what} is there already, at {first}")),
        None => {
            claims.insert(key, place.clone());
        }
    }
}
