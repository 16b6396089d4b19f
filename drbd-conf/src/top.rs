//! What stands outside of any section: `global`, `common`, `resource`, `skip`, `include` and demands on the module's version.

use crate::known::{Check, Unit, complain};
use crate::model::{Requirement, Sections};
use crate::options::Options;
use crate::reader::{Reader, Step, claim};
use crate::token::{Kind, Token};

impl Reader<'_> {
    /// A whole file.
    pub(crate) fn top(&mut self) {
        loop {
            let token = self.next();
            let done = match token.kind {
                Kind::End => return,
                Kind::Punctuation(b'}') => {
                    self.wrong(token.line, "a brace is closed that was not opened");
                    Ok(())
                }
                _ => self.top_statement(token),
            };
            if let Err(failed) = done {
                self.give_up(failed);
            }
        }
    }

    fn top_statement(&mut self, token: Token) -> Step<()> {
        let line = token.line;
        let word = if token.kind == Kind::Word { token.text.as_str() } else { "" };
        match word {
            "global" => self.global(line),
            "common" => self.common(line),
            "resource" => self.resource(),
            "skip" => {
                self.skip(line);
                Ok(())
            }
            "include" => {
                let pattern = self.string("the name of a file")?;
                self.punctuation(b';')?;
                let place = self.place(line);
                self.include(&pattern, &place, Reader::top);
                Ok(())
            }
            _ => match word.strip_prefix("require-drbd-module-version-").map(str::to_owned) {
                Some(relation) if ["eq", "ne", "gt", "ge", "lt", "le"].contains(&relation.as_str()) => {
                    self.requirement(line, relation)
                }
                _ => Err(self.unexpected(token, "global, common, resource, skip or include")),
            },
        }
    }

    fn requirement(&mut self, line: u32, relation: String) -> Step<()> {
        let token = self.next();
        if token.kind != Kind::Version {
            return Err(self.unexpected(token, "a version such as 9.0.16"));
        }
        self.punctuation(b';')?;
        let place = self.place(line);
        self.config.required.push(Requirement { relation, version: token.text, place });
        Ok(())
    }

    fn global(&mut self, line: u32) -> Step<()> {
        self.claim("The section global", "global".into(), line);
        self.punctuation(b'{')?;
        let mut options = Options::default();
        self.section(|reader, token| {
            let line = token.line;
            let (name, value) = reader.global_option(token)?;
            options.push(reader.plain(line, name, value));
            Ok(())
        });
        self.config.global.extend(options);
        Ok(())
    }

    fn global_option(&mut self, token: Token) -> Step<(String, String)> {
        let line = token.line;
        let check = match token.text.as_str() {
            _ if token.kind != Kind::Word => return Err(self.unexpected(token, "an option")),
            "udev-always-use-vnr" | "disable-ip-verification" => {
                self.punctuation(b';')?;
                return Ok((token.text, "yes".into()));
            }
            "minor-count" => Check::Number(1, 255, Unit::One),
            "dialog-refresh" => Check::Number(0, 600, Unit::One),
            "cmd-timeout-short" | "cmd-timeout-medium" | "cmd-timeout-long" => Check::Number(0, 900, Unit::One),
            "usage-count" => Check::Choice(&["yes", "no", "ask"]),
            _ => return Err(self.unexpected(token, "an option of global")),
        };
        let value = self.next();
        if !matches!(value.kind, Kind::Word | Kind::Integer) {
            return Err(self.unexpected(value, "a value"));
        }
        self.punctuation(b';')?;
        if let Some(complaint) = check.complaint(&value.text) {
            self.wrong(line, complain(&token.text, &value.text, &complaint));
        }
        Ok((token.text, value.text))
    }

    fn common(&mut self, line: u32) -> Step<()> {
        self.punctuation(b'{')?;
        self.claim("The section common, or a resource of that name,", "resource:common".into(), line);
        self.config.common = Some(self.shared("common"));
        Ok(())
    }

    /// The sections of `common` or of a template: a resource's without hosts.
    pub(crate) fn shared(&mut self, name: &str) -> Sections {
        self.resource_claims.clear();
        let place = self.place(1);
        let mut resource = crate::resource::empty(name.to_owned(), place);
        self.resource_body(&mut resource);
        if let Some(host) = resource.hosts.first() {
            self.mistakes.add(&host.place, format!("{name} has no hosts"));
        }
        resource.sections
    }

    /// Takes something that may be there once in all files.
    pub(crate) fn claim(&mut self, what: &str, key: String, line: u32) {
        let place = self.place(line);
        claim(&mut self.claims, &mut self.mistakes, what, key, &place);
    }
}
