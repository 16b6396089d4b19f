//! From parsed keys to libxl's JSON: how the table is applied, and how values are read. What needs words of its own is beside
//! this file, by subject.

use serde_json::{Map, Value, json};

use super::devices::{self, Device};
use super::host::Host;
use super::keys::{self, Bounds, DomainType, KEYS, Key, Take};
use super::vnuma::Nodes;
use super::words::{ACTIONS, Choices, Words, none_of};
use super::{Error, Problem, Warning, scan};
use crate::nearest::nearest;
use crate::xen::xlu;

/// A configuration on its way.
#[derive(Debug)]
pub(super) struct Builder {
    pub(super) config: xlu::Config,
    /// The keys of the file, each with its line.
    set: Vec<(String, usize)>,
    pub(super) host: Host,
    problems: Vec<Problem>,
    warnings: Vec<Warning>,
    /// The key that is being applied.
    key: &'static str,
    json: Map<String, Value>,
    pub(super) domain_type: DomainType,
    /// vCPUs that the domain can have.
    pub(super) vcpus_max: usize,
    /// What its virtual NUMA nodes have together, when it has any.
    pub(super) nodes: Option<Nodes>,
}

impl Builder {
    /// With nothing applied yet.
    pub(super) fn new(file: &str, text: &str, host: &Host) -> Result<Self, Error> {
        Ok(Self {
            config: xlu::Config::parse(file, text).map_err(|source| Error::Syntax { source })?,
            set: scan::keys(text),
            host: host.clone(),
            problems: Vec::new(),
            warnings: Vec::new(),
            key: "",
            json: Map::new(),
            domain_type: DomainType::Pv,
            vcpus_max: 1,
            nodes: None,
        })
    }

    pub(super) fn refuse_unknown_keys(&mut self) {
        self.problems.extend(self.unknown_keys(KEYS));
    }

    /// The keys that a table has not.
    pub(super) fn unknown_keys(&self, table: &[Key]) -> Vec<Problem> {
        let names = || table.iter().map(|key| key.name);
        let unknown = self.set.iter().filter(|(key, _)| !names().any(|known| known == key));
        let problem = |(key, line): &(String, usize)| Problem::UnknownKey {
            nearest: nearest(key, names()),
            key: key.clone(),
            line: *line,
        };
        unknown.map(problem).collect()
    }

    /// The whole of a domain: what the host says of all, then the file.
    pub(super) fn domain(&mut self) {
        self.apply(self.host.defaults.fields.clone(), KEYS);
        self.complete_nics();
        self.keep_to_cpus();
    }

    /// A whole table, over what is there already.
    pub(super) fn apply(&mut self, fields: Map<String, Value>, table: &[Key]) {
        self.json = fields;
        table.iter().for_each(|key| self.apply_key(key));
    }

    /// What was made, unless something is wrong.
    pub(super) fn finish(self, file: &str) -> Result<(Map<String, Value>, Vec<Warning>), Error> {
        match self.problems.is_empty() {
            true => Ok((self.json, self.warnings)),
            false => Err(Error::Problems { file: file.to_owned(), problems: self.problems }),
        }
    }

    fn apply_key(&mut self, key: &Key) {
        self.key = key.name;
        let is_set = self.is_set(key.name);
        if let Some(only) = key.only.filter(|only| *only != self.domain_type) {
            if is_set {
                self.warn(format!("is ignored: only a domain of type {} has it", only.word()));
            }
            return;
        }
        if let Some(note) = key.note.filter(|_| is_set) {
            self.warn(note);
        }
        self.take(key.name, key.take);
    }

    fn take(&mut self, name: &'static str, take: Take) {
        match take {
            Take::Partner | Take::Ignored => {}
            Take::By(function) => function(self),
            Take::Action(path, default) => {
                let action = if self.is_set(name) { self.choice(name, ACTIONS) } else { keys::action(default) };
                self.put_some(path, action);
            }
            Take::Text(path) => {
                let text = self.text(name);
                self.put_some(path, text);
            }
            Take::Texts(path) => {
                let list = self.list(name);
                self.put_list(path, list);
            }
            Take::TextOrTexts(one, many) => {
                if self.is_list(name) {
                    self.take(name, Take::Texts(many));
                } else {
                    self.take(name, Take::Text(one));
                }
            }
            Take::Flag(path) => {
                let flag = self.flag(name);
                self.put_some(path, flag.map(truth));
            }
            Take::Number(path, bounds, default) => {
                let number = self.bounded(name, bounds).filter(|number| *number != default);
                self.put_some(path, number);
            }
            Take::Mib(path, bounds) => {
                let kib = self.bounded(name, bounds).map(|mib| mib * 1024);
                self.put_some(path, kib);
            }
            Take::Word(path, words) => self.word(name, path, words),
            Take::WordOrNumber(path, words, deprecated) => self.word_or_number(name, path, words, deprecated),
            Take::Choice(path, choices) => {
                let chosen = self.choice(name, choices);
                self.put_some(path, chosen);
            }
            Take::Devices(device) => self.devices(name, device),
        }
    }

    fn word(&mut self, name: &'static str, path: &str, words: &'static Words) {
        let Some(word) = self.text(name) else { return };
        match words.find(&word) {
            Some(known) => self.put_some(path, Some(known).filter(|known| *known != words.default)),
            None => self.problem(name, words.refusal(&word)),
        }
    }

    pub(super) fn word_or_number(&mut self, name: &'static str, path: &str, words: &'static Words, deprecated: bool) {
        let Ok(Some(number)) = self.config.number(name) else { return self.word(name, path, words) };
        let Some(known) = words.at(number) else {
            return self.problem(name, format!("= {number} is no number of {}", words.all.join(", ")));
        };
        if deprecated {
            self.warn(format!("is a number, which is deprecated: write {name} = {known:?}"));
        }
        self.put_some(path, Some(known).filter(|known| *known != words.default));
    }

    /// The devices of a list, each numbered by its place among those that there are.
    pub(super) fn devices(&mut self, name: &'static str, device: &Device) {
        for spec in self.list(name).unwrap_or_default() {
            match devices::parse(device, &spec, self.count(device.list)) {
                Ok(value) => self.push(device.list, value),
                Err(reason) => self.problem(name, format!("{spec:?}: {reason}")),
            }
        }
    }

    /// The meaning of a word that has to be one of a few.
    pub(super) fn choice(&mut self, key: &'static str, choices: Choices) -> Option<&'static str> {
        let word = self.text(key)?;
        let chosen = choices.iter().find(|(choice, _)| *choice == word);
        if chosen.is_none() {
            self.problem(key, none_of(&word, choices.iter().map(|(choice, _)| *choice)));
        }
        chosen.map(|(_, meaning)| *meaning)
    }

    /// A number within bounds.
    pub(super) fn bounded(&mut self, key: &'static str, (least, most): Bounds) -> Option<i64> {
        let number = self.number(key)?;
        if !(least..=most).contains(&number) {
            self.problem(key, format!("= {number} is not between {least} and {most}"));
            return None;
        }
        Some(number)
    }

    pub(super) fn flag(&mut self, key: &'static str) -> Option<bool> {
        self.number(key).map(|number| number != 0)
    }

    pub(super) fn text(&mut self, key: &'static str) -> Option<String> {
        let value = self.config.string(key);
        self.value(key, value)
    }

    pub(super) fn number(&mut self, key: &'static str) -> Option<i64> {
        let value = self.config.number(key);
        self.value(key, value)
    }

    pub(super) fn list(&mut self, key: &'static str) -> Option<Vec<String>> {
        let value = self.config.list(key);
        self.value(key, value)
    }

    pub(super) fn value<T>(&mut self, key: &'static str, value: Result<Option<T>, xlu::Error>) -> Option<T> {
        value.unwrap_or_else(|error| {
            self.problem(key, error.to_string());
            None
        })
    }

    /// Whether the file has the key, with whatever kind of value.
    pub(super) fn is_set(&self, key: &str) -> bool {
        !matches!(self.config.string(key), Ok(None))
    }

    /// Whether its value is a list: to ask for a string is an error then.
    pub(super) fn is_list(&self, key: &str) -> bool {
        self.config.string(key).is_err()
    }

    /// Each problem once, also where two steps look at the same key.
    pub(super) fn problem(&mut self, key: &'static str, reason: impl Into<String>) {
        let line = self.set.iter().rev().find(|(name, _)| name == key).map(|(_, line)| *line);
        let problem = Problem::Value { key, line, reason: reason.into() };
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// Something about the key that is being applied.
    pub(super) fn warn(&mut self, reason: impl Into<String>) {
        self.warn_of(self.key, reason);
    }

    pub(super) fn warn_of(&mut self, key: &str, reason: impl Into<String>) {
        self.warnings.push(Warning { key: key.to_owned(), reason: reason.into() });
    }

    pub(super) fn put_list(&mut self, path: &str, list: Option<Vec<impl Into<Value>>>) {
        self.put_some(path, list.filter(|list| !list.is_empty()));
    }

    pub(super) fn put_some(&mut self, path: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.put(path, value);
        }
    }

    pub(super) fn put(&mut self, path: &str, value: impl Into<Value>) {
        put(&mut self.json, path, value);
    }

    /// The text that stands where a path leads.
    pub(super) fn get(&self, path: &str) -> Option<&str> {
        let (first, rest) = path.split_once('/')?;
        self.json.get(first)?.pointer(&format!("/{rest}"))?.as_str()
    }

    /// The entries of a list of libxl's JSON, none where it is not there.
    pub(super) fn list_at(&mut self, path: &str) -> &mut [Value] {
        let (first, rest) =
            path.split_once('/').map_or((path, String::new()), |(first, rest)| (first, format!("/{rest}")));
        let list = self.json.get_mut(first).and_then(|value| value.pointer_mut(&rest));
        list.and_then(Value::as_array_mut).map_or(&mut [], Vec::as_mut_slice)
    }

    /// Adds a device to a list of libxl's JSON.
    pub(super) fn push(&mut self, list: &'static str, device: impl Into<Value>) {
        if let Value::Array(devices) = self.json.entry(list).or_insert_with(|| json!([])) {
            devices.push(device.into());
        }
    }

    /// How many devices a list of libxl's JSON has.
    pub(super) fn count(&self, list: &str) -> usize {
        self.json.get(list).and_then(Value::as_array).map_or(0, Vec::len)
    }
}

/// libxl's way to write a truth value that has a default.
pub(super) fn truth(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}

/// Puts a value where a path of names leads, with the objects on the way.
pub(super) fn put(object: &mut Map<String, Value>, path: &str, value: impl Into<Value>) {
    match path.split_once('/') {
        None => drop(object.insert(path.to_owned(), value.into())),
        Some((name, rest)) => {
            if let Value::Object(inner) = object.entry(name).or_insert_with(|| json!({})) {
                put(inner, rest, value);
            }
        }
    }
}
