//! Sections of options: `net`, `disk`, `options`, `startup`, `handlers`, `proxy`, and 8.3's `syncer`.

use crate::known::{Context, check_of, complain, renamed};
use crate::model::Sections;
use crate::options::{Options, Setting};
use crate::place::shown;
use crate::reader::{Reader, Step};
use crate::token::{Kind, Token};

/// The most options of one section: a bound for what each resource, volume and connection may inherit.
const OPTIONS_MAX: usize = 128;

impl Reader<'_> {
    /// The options up to the brace; each is of the first of `contexts` that knows it, and of the first where none does.
    fn each_option(&mut self, contexts: &[Context], mut keep: impl FnMut(Context, Setting)) {
        let mut count = 0;
        self.section(|reader, token| {
            count += 1;
            if count == OPTIONS_MAX + 1 {
                reader.wrong(token.line, format!("a section has more than {OPTIONS_MAX} options"));
            }
            let (context, setting) = reader.option(token, contexts, str::to_owned)?;
            if count <= OPTIONS_MAX {
                keep(context, setting);
            }
            Ok(())
        });
    }

    /// A section with options of one kind.
    pub(crate) fn options(&mut self, context: Context) -> Options {
        let mut options = Options::default();
        self.each_option(&[context], |_, setting| options.push(setting));
        options
    }

    /// `handlers { }`: 8.3's name of one of them is today's.
    pub(crate) fn handlers(&mut self) -> Options {
        let mut handlers = Options::default();
        self.each_option(&[Context::Handlers], |_, setting| {
            let name = renamed(&setting.name).to_owned();
            handlers.push(Setting { name, ..setting });
        });
        handlers
    }

    /// `disk { }`: what is about the disk, and what is about a volume and a peer.
    pub(crate) fn disk_options(&mut self) -> (Options, Options) {
        let (mut disk, mut peer_device) = (Options::default(), Options::default());
        self.each_option(&[Context::Disk, Context::PeerDevice], |context, setting| match context {
            Context::PeerDevice => peer_device.push(setting),
            _ => disk.push(setting),
        });
        (disk, peer_device)
    }

    /// 8.3's `syncer`: its options are those of other sections today.
    pub(crate) fn syncer(&mut self, sections: &mut Sections) {
        let contexts = [Context::Net, Context::Disk, Context::PeerDevice, Context::Resource];
        self.section(|reader, token| {
            let (context, setting) = reader.option(token, &contexts, |name| renamed(name).to_owned())?;
            match context {
                Context::Net => sections.net.push(setting),
                Context::PeerDevice => sections.peer_device.push(setting),
                Context::Resource => sections.options.push(setting),
                _ => sections.disk.push(setting),
            }
            Ok(())
        });
    }

    /// `startup { }`: two of its statements are no options.
    pub(crate) fn startup(&mut self) -> Options {
        let mut options = Options::default();
        self.section(|reader, token| {
            let line = token.line;
            let setting = match token.text.as_str() {
                "become-primary-on" => {
                    let words = reader.words()?;
                    reader.plain(line, token.text, words.join(" "))
                }
                "stacked-timeouts" => {
                    reader.punctuation(b';')?;
                    reader.plain(line, token.text, "yes".to_owned())
                }
                _ => reader.option(token, &[Context::Startup], str::to_owned)?.1,
            };
            options.push(setting);
            Ok(())
        });
        options
    }

    /// `proxy { }` and `options { }` of a proxy: options, and plugins with lines of their own grammar.
    pub(crate) fn proxy_options(&mut self) -> (Options, Options) {
        let (mut options, mut plugins) = (Options::default(), Options::default());
        self.section(|reader, token| {
            if token.is("plugin") {
                reader.punctuation(b'{')?;
                plugins = reader.plugins();
                return Ok(());
            }
            options.push(reader.option(token, &[Context::Proxy], str::to_owned)?.1);
            Ok(())
        });
        (options, plugins)
    }

    fn plugins(&mut self) -> Options {
        let mut plugins = Options::default();
        self.section(|reader, token| {
            let line = token.line;
            reader.push_back(token);
            let words = reader.words()?;
            plugins.push(reader.plain(line, words.join(" "), String::new()));
            Ok(())
        });
        plugins
    }

    /// `NAME [VALUE];`
    pub(crate) fn option(
        &mut self,
        token: Token,
        contexts: &[Context],
        today: fn(&str) -> String,
    ) -> Step<(Context, Setting)> {
        if !matches!(token.kind, Kind::Word | Kind::Quoted) {
            return Err(self.unexpected(token, "an option"));
        }
        let (written, line) = (today(&token.text), token.line);
        let (name, negated) = match written.strip_prefix("no-") {
            Some(name) => (name.to_owned(), true),
            None => (written.clone(), false),
        };
        let known = contexts.iter().find_map(|context| check_of(*context, &name).map(|check| (*context, check)));
        let value = self.option_value()?;
        let Some((context, check)) = known else {
            self.remark(line, format!("no option is known as {}", shown(&written)));
            let setting = self.plain(line, written, value.unwrap_or_else(|| "yes".into()));
            return Ok((contexts[0], Setting { known: false, ..setting }));
        };
        let value = value.unwrap_or_else(|| if negated { "no".into() } else { "yes".into() });
        // A node's name follows; whether there is one is looked at when the hosts are known.
        let deferred = name == "after-sb-0pri" && value.starts_with("discard-node-");
        if let Some(complaint) = check.complaint(&value).filter(|_| !deferred) {
            self.wrong(line, complain(&name, &value, &complaint));
        }
        Ok((context, self.plain(line, name, value)))
    }

    fn option_value(&mut self) -> Step<Option<String>> {
        let token = self.next();
        match token.kind {
            Kind::Punctuation(b';') => Ok(None),
            Kind::Word | Kind::Quoted | Kind::Integer | Kind::Ipv4 | Kind::Ipv6 | Kind::Version => {
                self.punctuation(b';')?;
                Ok(Some(token.text))
            }
            _ => Err(self.unexpected(token, "a value or ';'")),
        }
    }

    /// Any words up to the semicolon.
    fn words(&mut self) -> Step<Vec<String>> {
        let mut words = Vec::new();
        loop {
            let token = self.next();
            match token.kind {
                Kind::Punctuation(b';') => return Ok(words),
                Kind::Punctuation(_) | Kind::End | Kind::TooLong | Kind::Unterminated => {
                    return Err(self.unexpected(token, "a word or ';'"));
                }
                _ => words.push(token.text),
            }
        }
    }

    pub(crate) fn plain(&self, line: u32, name: String, value: String) -> Setting {
        Setting { name, value, place: self.place(line), inherited: false, known: true }
    }
}
