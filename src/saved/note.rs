//! What a saved file says of the domain's volumes, so that a restore can tell whether they were written since: a memory that is resumed on a
//! disk that has gone on is how file systems are ruined.
//!
//! It stands behind the configuration, where xl skips it. It proves what DRBD can: the disk's own count of writes on the host where the domain was
//! saved, as long as that is not booted and the volume not detached; and the data generation on any host, which changes when a volume is
//! written without its peer, but not when both are connected. So "written" is certain, "unchanged" is for as long as the count
//! goes on, and everything else cannot be told.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::VolumeId;
use crate::replication::VolumeState;

/// What was so when the domain had been suspended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The host.
    pub node: String,
    /// The boot of that host that the counts belong to.
    pub boot: Uuid,
    /// The volumes under the domain's disks.
    pub volumes: Vec<Mark>,
}

/// One volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Which.
    pub id: VolumeId,
    /// Its data generation.
    pub generation: u64,
    /// Its disk's count of writes, in sectors of 512 bytes.
    pub written: u64,
}

impl From<&VolumeState> for Mark {
    fn from(state: &VolumeState) -> Mark {
        Mark { id: state.id.clone(), generation: state.generation, written: state.counters.written }
    }
}

/// Keeps our note apart from whatever else might stand there.
#[derive(Serialize, Deserialize)]
struct Tail {
    bascule: Note,
}

impl Note {
    /// The note of this host and these volumes.
    #[must_use]
    pub fn new(node: &str, boot: Uuid, states: &[VolumeState]) -> Note {
        Note { node: node.into(), boot, volumes: states.iter().map(Mark::from).collect() }
    }

    /// Reads it from what follows the configuration; none where that is not ours.
    pub(super) fn parse(tail: &[u8]) -> Option<Note> {
        serde_json::from_slice(tail).ok().map(|tail: Tail| tail.bascule)
    }

    pub(super) fn text(self) -> String {
        serde_json::to_string(&Tail { bascule: self }).unwrap_or_default()
    }

    /// How long the text of a note of these volumes can become, in bytes.
    pub(super) fn text_len_max(mut self) -> usize {
        for mark in &mut self.volumes {
            (mark.generation, mark.written) = (u64::MAX, u64::MAX);
        }
        self.text().len()
    }
}

/// What has become of a volume since the domain was saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// Nobody has written it.
    Unchanged,
    /// This many sectors of 512 bytes were written.
    Written(u64),
    /// It has another data generation: it was written, or ready to be, without its peer.
    OtherGeneration,
    /// It cannot be told.
    Unknown(Why),
}

/// Why it cannot be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The file says nothing of it.
    NotNoted,
    /// It was saved on another host, or this one was booted since.
    OtherCount,
    /// The volume was detached since.
    Detached,
}

impl Since {
    /// Whether the domain's memory cannot fit the volume any more.
    #[must_use]
    pub fn is_written(self) -> bool {
        matches!(self, Since::Written(_) | Since::OtherGeneration)
    }
}

/// The rest of a sentence about the volume.
impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Since::Unchanged => f.write_str("was not written"),
            Since::Written(sectors) => write!(f, "was written ({sectors} sectors)"),
            Since::OtherGeneration => f.write_str("has another data generation: it was written"),
            Since::Unknown(why) => write!(f, "may have been written: {why}"),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::NotNoted => "the file says nothing of it",
            Why::OtherCount => "this host's DRBD has not counted since then",
            Why::Detached => "it was detached meanwhile",
        })
    }
}

/// What has become of a volume of this host in this boot.
#[must_use]
pub fn since(note: Option<&Note>, node: &str, boot: Uuid, now: &VolumeState) -> Since {
    let marked = note.and_then(|note| Some((note, note.volumes.iter().find(|mark| mark.id == now.id)?)));
    let Some((note, mark)) = marked else { return Since::Unknown(Why::NotNoted) };
    if mark.generation != now.generation {
        return Since::OtherGeneration;
    }
    if (note.node.as_str(), note.boot) != (node, boot) {
        return Since::Unknown(Why::OtherCount);
    }
    match now.counters.written.checked_sub(mark.written) {
        None => Since::Unknown(Why::Detached),
        Some(0) => Since::Unchanged,
        Some(sectors) => Since::Written(sectors),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ids::Minor;
    use crate::replication::Counters;

    const BOOT: Uuid = Uuid::from_u128(7);

    pub(in super::super) fn volume(written: u64) -> VolumeState {
        VolumeState {
            id: VolumeId { resource: "r0".into(), volume: 0 },
            minor: Minor(0),
            size_sectors: 1 << 20,
            generation: 0xabcd,
            primary: true,
            peer_primary: false,
            connected: true,
            connection: "Connected".into(),
            disk: "UpToDate".into(),
            peer_disk: "UpToDate".into(),
            up_to_date: true,
            replication: "Established".into(),
            resync_done: None,
            resyncing: false,
            protocol: Some('C'),
            two_primaries: false,
            standalone: false,
            out_of_sync_sectors: 0,
            peer: "10.98.0.2".into(),
            counters: Counters { written, ..Counters::default() },
        }
    }

    fn note() -> Note {
        Note::new("node1", BOOT, &[volume(100)])
    }

    #[test]
    fn a_count_that_stands_still_proves_it_and_one_that_went_on_proves_the_opposite() {
        let see = |written| since(Some(&note()), "node1", BOOT, &volume(written));
        assert_eq!(see(100), Since::Unchanged);
        assert_eq!(see(108), Since::Written(8));
        assert_eq!(see(0), Since::Unknown(Why::Detached));
        assert!(see(108).is_written() && !see(100).is_written() && !see(0).is_written());
    }

    #[test]
    fn elsewhere_and_later_only_the_generation_tells() {
        let mut other = volume(100);
        assert_eq!(since(Some(&note()), "node2", BOOT, &other), Since::Unknown(Why::OtherCount));
        assert_eq!(since(Some(&note()), "node1", Uuid::from_u128(8), &other), Since::Unknown(Why::OtherCount));
        other.generation = 0xabce;
        for node in ["node1", "node2"] {
            assert_eq!(since(Some(&note()), node, BOOT, &other), Since::OtherGeneration);
        }
    }

    #[test]
    fn what_is_not_noted_cannot_be_told() {
        let mut other = volume(100);
        other.id.volume = 1;
        assert_eq!(since(Some(&note()), "node1", BOOT, &other), Since::Unknown(Why::NotNoted));
        assert_eq!(since(None, "node1", BOOT, &volume(100)), Since::Unknown(Why::NotNoted));
    }

    #[test]
    fn it_is_read_as_it_is_written_and_never_outgrows_its_place() {
        let len = note().text_len_max();
        let text = format!("{:len$}", note().text());
        assert_eq!(text.len(), len);
        assert_eq!(Note::parse(text.as_bytes()), Some(note()));
        for other in ["", "   ", "{}", "[1]", r#"{"xl": 1}"#] {
            assert_eq!(Note::parse(other.as_bytes()), None, "{other:?}");
        }
    }
}
