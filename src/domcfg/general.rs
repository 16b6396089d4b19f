//! What a domain is called and how it runs.

use serde_json::Map;
use uuid::Uuid;

use super::build::Builder;
use super::keys::DomainType;

/// The types by xl's words. The older key has a word of its own for PV.
const TYPES: [(&str, DomainType); 3] = [("pv", DomainType::Pv), ("pvh", DomainType::Pvh), ("hvm", DomainType::Hvm)];
const BUILDERS: [(&str, DomainType); 2] = [("hvm", DomainType::Hvm), ("generic", DomainType::Pv)];

impl Builder {
    /// `type`, or `builder` as before Xen 4.10.
    pub(super) fn domain_type(&mut self) {
        let named = self.type_among("type", &TYPES);
        let built = self.type_among("builder", &BUILDERS);
        if let (Some(named), Some(built)) = (named, built)
            && named != built
        {
            self.problem("type", format!("= {:?} contradicts builder", named.word()));
        }
        self.domain_type = named.or(built).unwrap_or(DomainType::Pv);
        let word = self.domain_type.word();
        self.put("c_info/type", word);
        self.put(&format!("b_info/type.{word}"), Map::new());
    }

    fn type_among(&mut self, key: &'static str, types: &[(&'static str, DomainType)]) -> Option<DomainType> {
        let word = self.text(key)?;
        let found = types.iter().find(|(known, _)| *known == word).map(|(_, found)| *found);
        if found.is_none() {
            let all: Vec<_> = types.iter().map(|(known, _)| *known).collect();
            self.problem(key, format!("= {word:?} is none of {}", all.join(", ")));
        }
        found
    }

    pub(super) fn name(&mut self) {
        match self.text("name") {
            Some(name) if !name.is_empty() => self.put("c_info/name", name),
            _ => self.problem("name", "is missing"),
        }
    }

    /// With hyphens, as libxl reads them.
    pub(super) fn uuid(&mut self) {
        let uuid = match self.text("uuid").map(|text| (parse_uuid(&text), text)) {
            None => Uuid::new_v4(),
            Some((Some(uuid), _)) => uuid,
            Some((None, text)) => return self.problem("uuid", format!("{text:?} is no UUID")),
        };
        self.put("c_info/uuid", uuid.hyphenated().to_string());
    }

    /// The label that the domain runs under. With `init_seclabel` that one is for building it, and this one for afterwards.
    pub(super) fn label(&mut self) {
        let label = self.text("seclabel");
        let place = if self.is_set("init_seclabel") { "b_info/exec_ssid_label" } else { "c_info/ssid_label" };
        self.put_some(place, label);
    }
}

/// A UUID in its form with hyphens, the only one that libxl reads.
pub(super) fn parse_uuid(text: &str) -> Option<Uuid> {
    text.parse().ok().filter(|_| text.len() == uuid::fmt::Hyphenated::LENGTH)
}
