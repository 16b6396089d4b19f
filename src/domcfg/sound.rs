//! Sound cards: a list of lists, one inner list a card. Its entries begin with `card`, `pcm` or `stream` and go on with
//! `key=value`; a stream belongs to the PCM device before it (xl.cfg, `vsnd`; xen/io/sndif.h).

use serde_json::{Map, Value, json};

use super::build::{Builder, put};
use super::devices::{Base, number};
use super::words;

/// Keys of what cards, PCM devices and streams have in common.
const COUNTS: [(&str, &str); 3] =
    [("channels-min", "channels_min"), ("channels-max", "channels_max"), ("buffer-size", "buffer_size")];

impl Builder {
    pub(super) fn sound(&mut self) {
        let cards = self.config.lists("vsnd");
        for (devid, entries) in self.value("vsnd", cards).unwrap_or_default().iter().enumerate() {
            match card(entries, devid) {
                Ok(card) => self.push("vsnds", card),
                Err(reason) => self.problem("vsnd", reason),
            }
        }
    }
}

fn card(entries: &[String], devid: usize) -> Result<Value, String> {
    let mut card = json!({ "devid": devid });
    for entry in entries {
        let mut parts = entry.split(',').map(str::trim_start).filter(|part| !part.is_empty());
        let Some(kind) = parts.next() else { continue };
        let (thing, fields) =
            place(&mut card, kind).ok_or_else(|| format!("{entry:?} begins with none of card, pcm, stream"))?;
        for part in parts {
            set(thing, fields, part).map_err(|reason| format!("{entry:?}: {reason}"))?;
        }
    }
    Ok(card)
}

/// Fields of one kind of thing, with libxl's names.
type Fields = &'static [(&'static str, &'static str)];

const CARD: Fields = &[("backend", "backend_domname"), ("short-name", "short_name"), ("long-name", "long_name")];
const PCM: Fields = &[("name", "name")];
const STREAM: Fields = &[("unique-id", "unique_id"), ("type", "type")];

/// What an entry is about: the card, a new PCM device, or a new stream of the last one, which is made where there is none.
fn place<'a>(card: &'a mut Value, kind: &str) -> Option<(&'a mut Map<String, Value>, Fields)> {
    match kind.to_ascii_lowercase().as_str() {
        "card" => Some((card.as_object_mut()?, CARD)),
        "pcm" => Some((add(card, "pcms")?.as_object_mut()?, PCM)),
        "stream" => {
            if card.get("pcms").is_none() {
                add(card, "pcms")?;
            }
            let pcm = card["pcms"].as_array_mut()?.last_mut()?;
            Some((add(pcm, "streams")?.as_object_mut()?, STREAM))
        }
        _ => None,
    }
}

/// A new object at the end of a list.
fn add<'a>(object: &'a mut Value, list: &str) -> Option<&'a mut Value> {
    let list = object.as_object_mut()?.entry(list).or_insert_with(|| json!([])).as_array_mut()?;
    list.push(json!({}));
    list.last_mut()
}

fn set(thing: &mut Map<String, Value>, fields: Fields, part: &str) -> Result<(), String> {
    let (key, value) = part.split_once('=').ok_or_else(|| format!("{part:?} is not KEY=VALUE"))?;
    let known = fields.iter().find(|(name, _)| *name == key).map(|(_, place)| *place);
    let count = COUNTS.iter().find(|(name, _)| *name == key);
    match (key, known, count) {
        ("type", Some(place), _) => {
            let word = words::SOUND_STREAMS
                .find(value)
                .ok_or_else(|| format!("type {}", words::SOUND_STREAMS.refusal(value)))?;
            put(thing, place, word);
        }
        (_, Some(place), _) => put(thing, place, value),
        (_, _, Some((_, place))) => {
            let count = number(value, Base::C).map_err(|reason| format!("{key} {reason}"))?;
            put(thing, &format!("params/{place}"), count);
        }
        ("sample-rates", ..) => {
            let rates = values(value).map(|rate| number(rate, Base::C)).collect::<Result<Vec<_>, _>>();
            put(thing, "params/sample_rates", rates.map_err(|reason| format!("{key} {reason}"))?);
        }
        ("sample-formats", ..) => {
            let format = |word| {
                words::SOUND_FORMATS.find(word).ok_or_else(|| format!("{key} {}", words::SOUND_FORMATS.refusal(word)))
            };
            put(thing, "params/sample_formats", values(value).map(format).collect::<Result<Vec<_>, _>>()?);
        }
        _ => return Err(format!("{key} is not understood here")),
    }
    Ok(())
}

fn values(list: &str) -> impl Iterator<Item = &str> {
    list.split(';').filter(|value| !value.is_empty())
}
