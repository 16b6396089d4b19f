//! Options: names with values, each with the place that it comes from.

use crate::known::number_of;
use crate::place::Place;

/// One option, as a section has it or inherits it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its name, without `no-`, and today's where it has an older one.
    pub name: String,
    /// Its value, as it is written; `yes` or `no` where there is none.
    pub value: String,
    /// Where it is written, whichever section inherits it.
    pub place: Place,
    /// It comes from a section further out.
    pub inherited: bool,
    /// It is an option that this reader knows.
    pub known: bool,
}

impl Setting {
    /// The value as a number, in the unit in which DRBD counts it; `None` where the option is no number.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        number_of(&self.name, &self.value)
    }

    /// It is a flag that is set.
    #[must_use]
    pub fn is_yes(&self) -> bool {
        self.value == "yes"
    }
}

/// The options of one section. A name may be there several times, as in the files; the last one counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options(Vec<Setting>);

impl Options {
    /// The setting that counts.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Setting> {
        self.0.iter().rfind(|setting| setting.name == name)
    }

    /// Its value.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        self.get(name).map(|setting| setting.value.as_str())
    }

    /// All of them: first what it inherits, then what the section has itself, in its order.
    pub fn iter(&self) -> impl Iterator<Item = &Setting> {
        self.0.iter()
    }

    /// There is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn push(&mut self, setting: Setting) {
        self.0.push(setting);
    }

    pub(crate) fn extend(&mut self, more: Options) {
        self.0.extend(more.0);
    }

    pub(crate) fn put_first(&mut self, setting: Setting) {
        self.0.insert(0, setting);
    }

    /// The first of that name: what drbdadm compares with where an option would be inherited twice.
    pub(crate) fn first(&self, name: &str) -> Option<&Setting> {
        self.0.iter().find(|setting| setting.name == name)
    }
}
