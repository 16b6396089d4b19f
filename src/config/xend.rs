//! The import of xend's relocation settings (`/etc/xen/xend-config.sxp`): what has a meaning here is carried over, the rest and what
//! was unsafe is told.

use super::sxp::{self, Node};
use super::value::{quoted, shortened};
use super::{Address, Config};
use crate::daemon::{Allow, Entry, is_full_name};

/// What the import has to say about something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// It was carried over, and how.
    Carried(String),
    /// It has no meaning now, or could not be carried over.
    Dropped(String),
    /// It was unsafe.
    Unsafe(String),
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Note::Carried(text) => write!(f, "carried over: {text}"),
            Note::Dropped(text) => write!(f, "not carried over: {text}"),
            Note::Unsafe(text) => write!(f, "UNSAFE: {text}"),
        }
    }
}

/// What came of a file.
#[derive(Debug)]
pub struct Imported {
    /// Our settings.
    pub config: Config,
    /// What there is to say, in the order in which a person should read it.
    pub notes: Vec<Note>,
}

impl Imported {
    /// The complete file, with the notes as comments on top.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let notes = self.notes.iter().map(|note| format!("#   {note}\n"));
        format!("# Imported from xend's configuration:\n{}\n{}", notes.collect::<String>(), self.config.to_toml())
    }
}

/// Reads the text of an xend-config.sxp.
///
/// # Errors
/// Where the text is no sequence of S-expressions.
pub fn import(text: &str) -> Result<Imported, sxp::Error> {
    let mut import = Import { settings: settings(sxp::read(text)?), config: Config::default(), notes: Vec::new() };
    import.hosts_allow();
    import.server();
    import.port();
    import.address();
    import.ssl();
    import.rest();
    let Import { config, mut notes, .. } = import;
    notes.sort_by_key(|note| match note {
        Note::Unsafe(_) => 0,
        Note::Carried(_) => 1,
        Note::Dropped(_) => 2,
    });
    Ok(Imported { config, notes })
}

struct Import {
    /// Those that nobody has looked at yet.
    settings: Vec<(String, String)>,
    config: Config,
    notes: Vec<Note>,
}

/// The lists of two atoms: a name and its value. Of one that stands there twice, xend took the first.
fn settings(nodes: Vec<Node>) -> Vec<(String, String)> {
    let pair = |node| match node {
        Node::List(list) => match list.as_slice() {
            [Node::Atom(name), Node::Atom(value)] => Some((name.clone(), value.clone())),
            [Node::Atom(name), ..] => Some((name.clone(), String::new())),
            _ => None,
        },
        Node::Atom(_) => None,
    };
    nodes.into_iter().filter_map(pair).collect()
}

impl Import {
    fn take(&mut self, name: &str) -> Option<String> {
        let found = self.settings.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        self.settings.retain(|(known, _)| known != name);
        found
    }

    fn carried(&mut self, text: impl Into<String>) {
        self.notes.push(Note::Carried(text.into()));
    }

    fn dropped(&mut self, text: impl Into<String>) {
        self.notes.push(Note::Dropped(text.into()));
    }

    fn server(&mut self) {
        let given = self.take("xend-relocation-server");
        let enabled = given.as_deref().is_some_and(is_yes);
        self.config.relocation.enabled = enabled;
        match given {
            Some(value) => self.carried(format!("xend-relocation-server {} as enabled = {enabled}", shown(&value))),
            None => self.carried("no xend-relocation-server, which was xend's no, as enabled = false"),
        }
        self.notes.push(Note::Unsafe(
            "xend took and sent domains in clear, from and to whoever answered; here the hosts know each other's keys: bascule pair"
                .into(),
        ));
    }

    fn port(&mut self) {
        let Some(value) = self.take("xend-relocation-port") else { return };
        match value.parse().ok().filter(|port| *port != 0) {
            Some(port) => {
                self.config.relocation.port = port;
                self.carried(format!("xend-relocation-port {port} as port"));
            }
            None => self.dropped(format!("xend-relocation-port {} is no port", shown(&value))),
        }
    }

    fn address(&mut self) {
        let Some(value) = self.take("xend-relocation-address") else { return };
        match value.trim().parse::<Address>() {
            Ok(address @ Address::Ip(_)) => {
                self.carried(format!("xend-relocation-address {address} as address"));
                self.config.relocation.address = vec![address];
            }
            _ if value.trim().is_empty() => {
                self.carried("xend-relocation-address '' (all addresses) as an empty address")
            }
            _ => {
                let value = shown(&value);
                self.dropped(format!(
                    "xend-relocation-address {value} is no address: all are listened on until you write one"
                ));
            }
        }
    }

    /// Expressions between blanks; xend asked only that the beginning of the peer's name or address match.
    fn hosts_allow(&mut self) {
        let value = self.take("xend-relocation-hosts-allow").unwrap_or_default();
        if value.trim().is_empty() {
            self.notes.push(Note::Unsafe(
                "xend-relocation-hosts-allow was empty or missing, which allowed everybody; here an empty hosts-allow allows nobody: \
                 write who may connect"
                    .into(),
            ));
        }
        let mut entries = Vec::new();
        for expression in value.split_whitespace() {
            entries.extend(self.host(expression));
        }
        self.config.relocation.hosts_allow = Allow(entries);
    }

    fn host(&mut self, expression: &str) -> Option<Entry> {
        let shown_expression = shown(expression);
        let entry = match plain(expression).unwrap_or_else(|| format!("/{expression}/")).parse::<Entry>() {
            Ok(entry) => entry,
            Err(why) => {
                self.dropped(format!("hosts-allow {shown_expression}: {}", shown(&why)));
                return None;
            }
        };
        if matches!(&entry, Entry::Pattern(pattern, _) if pattern.is_match("") || pattern.is_match(ANYBODY)) {
            self.notes.push(Note::Unsafe(format!(
                "hosts-allow {shown_expression} matches everybody and was left out: write who may connect"
            )));
            return None;
        }
        if !expression.ends_with('$') {
            self.notes.push(Note::Unsafe(format!(
                "hosts-allow {shown_expression} also allowed whatever only begins like that; here the whole must match"
            )));
        }
        self.carried(format!("hosts-allow {shown_expression} as {}", quoted(&entry.to_string())));
        Some(entry)
    }

    fn ssl(&mut self) {
        if self.take("xend-relocation-ssl-server").as_deref().is_some_and(is_yes) {
            self.dropped("xend-relocation-ssl-server: there is one port, and no second one for encryption");
            if !self.config.relocation.enabled {
                self.dropped("xend served relocation by SSL alone: set enabled = true if domains shall be received");
            }
        }
        let without =
            ["xend-relocation-ssl-port", "xend-relocation-server-ssl-key-file", "xend-relocation-server-ssl-cert-file"];
        for name in without {
            if let Some(value) = self.take(name) {
                self.dropped(format!("{name} {} has no meaning here", shown(&value)));
            }
        }
    }

    fn rest(&mut self) {
        let mut names: Vec<String> = self.settings.drain(..).map(|(name, _)| shown(&name)).collect();
        names.sort();
        names.dedup();
        if !names.is_empty() {
            self.dropped(format!("settings of xend that have no meaning here: {}", shortened_list(&names)));
        }
    }
}

/// An address and a name that no list of a sane administrator has.
const ANYBODY: &str = "240.0.0.1";

/// xend's words for yes (XendOptions, get_config_bool).
fn is_yes(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "yes" | "y" | "1" | "on" | "true" | "t")
}

/// An expression that stands for one address or one full name.
fn plain(expression: &str) -> Option<String> {
    let inner = expression.strip_prefix('^').unwrap_or(expression);
    let inner = inner.strip_suffix('$').unwrap_or(inner).replace("\\.", ".");
    (inner.parse::<std::net::IpAddr>().is_ok() || is_full_name(&inner)).then_some(inner)
}

/// A foreign text within a line of ours.
fn shown(text: &str) -> String {
    let escaped: String = shortened(text)
        .chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect();
    if escaped.is_empty() { "''".into() } else { escaped }
}

/// The most names that are repeated.
const NAMES_MAX: usize = 40;

fn shortened_list(names: &[String]) -> String {
    let more = names.len().saturating_sub(NAMES_MAX);
    let shown = names[..names.len() - more].join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    fn allowed(imported: &Imported) -> Vec<String> {
        imported.config.relocation.hosts_allow.0.iter().map(ToString::to_string).collect()
    }

    fn has(imported: &Imported, words: &str) -> bool {
        imported.to_toml().lines().any(|line| line.starts_with("#   ") && line.contains(words))
    }

    #[test]
    fn what_has_a_meaning_is_carried_over() {
        let text = "(xend-relocation-server yes)\n(xend-relocation-port 8003)\n(xend-relocation-address '10.99.0.1')\n\
            (xend-relocation-hosts-allow '^localhost$ ^node2\\\\.example\\\\.org$ ^10\\\\.99\\\\.0\\\\.2$ ^10\\\\.99\\\\.0\\\\.')\n";
        let imported = import(text).expect("xend's");
        let relocation = &imported.config.relocation;
        assert!(relocation.enabled && relocation.port == 8003 && relocation.address[0].to_string() == "10.99.0.1");
        assert_eq!(allowed(&imported), ["/^localhost$/", "node2.example.org", "10.99.0.2", r"/^10\.99\.0\./"]);
        assert!(has(&imported, r"UNSAFE: hosts-allow ^10\.99\.0\. also allowed"), "{}", imported.to_toml());
        assert!(Config::parse(Path::new("f"), &imported.to_toml()).is_ok());
    }

    #[test]
    fn an_empty_list_was_everybody_and_is_nobody() {
        for text in
            ["", "(xend-relocation-server yes)(xend-relocation-hosts-allow '')", "(xend-relocation-hosts-allow '.*')"]
        {
            let imported = import(text).expect("xend's");
            assert!(allowed(&imported).is_empty() && has(&imported, "UNSAFE"), "{text}");
        }
        assert!(!import("").expect("xend's").config.relocation.enabled);
    }

    #[test]
    fn what_has_no_meaning_is_told() {
        let text = "(xend-relocation-ssl-server yes)(xend-relocation-ssl-port 8003)(vncpasswd '')(xend-relocation-port 0)\
            (xend-relocation-server-ssl-key-file /k)(xend-relocation-server-ssl-cert-file /c)\
            (xend-relocation-hosts-allow '(?=x)y$ ^a$')(xend-relocation-address nowhere)";
        let imported = import(text).expect("xend's");
        for words in
            ["ssl-server", "ssl-port 8003", "key-file /k", "cert-file /c", "vncpasswd", "port 0", "(?=x)y$", "nowhere"]
        {
            assert!(has(&imported, words), "{words}: {}", imported.to_toml());
        }
        assert_eq!(allowed(&imported), ["/^a$/"]);
    }

    #[test]
    fn a_foreign_text_cannot_leave_its_comment() {
        let imported = import("(\"x\nenabled = true\" 1)(xend-relocation-port '1\n[log]')").expect("xend's");
        let again = Config::parse(Path::new("f"), &imported.to_toml()).expect("ours");
        assert_eq!(again.relocation, imported.config.relocation);
    }

    proptest! {
        #[test]
        fn whatever_is_imported_can_be_read(hosts in "[^'\\\\]*", port in "[^'\\\\]*", name in "[^'\\\\]*") {
            let text = format!("(xend-relocation-hosts-allow '{hosts}')(xend-relocation-port '{port}')('{name}' 1)");
            let imported = import(&text).expect("xend's");
            let again = Config::parse(Path::new("f"), &imported.to_toml());
            prop_assert_eq!(again.expect("ours").relocation, imported.config.relocation);
        }

        #[test]
        fn any_text_is_imported_or_refused(text in "[()'\"# \\PC]*") {
            let _ = import(&text);
        }
    }
}
