//! What a running lab is: written by `up`, read by whoever attaches, gone after `down`.

use std::fs;
use std::io;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::layout::Layout;
use crate::qemu::DiskCache;

/// The file `lab.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct State {
    /// TCP ports of 127.0.0.1 that lead to the nodes' ssh servers.
    pub(crate) ssh_ports: [u16; 2],
    pub(crate) disk_cache: DiskCache,
    /// Links that are cut, by name. A node that is switched on again finds them cut.
    pub(crate) cut: Vec<String>,
}

const FILE: &str = "lab.json";

impl State {
    pub(crate) fn load(layout: &Layout) -> anyhow::Result<Option<Self>> {
        let text = match fs::read_to_string(layout.file(FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context("The lab's state cannot be read"),
        };
        Ok(Some(
            serde_json::from_str(&text)
                .context("The lab's state cannot be understood: `cargo xtask lab down`, then up")?,
        ))
    }

    pub(crate) fn save(&self, layout: &Layout) -> anyhow::Result<()> {
        let partial = layout.file("lab.json.new");
        fs::write(&partial, serde_json::to_vec_pretty(self)?)?;
        fs::rename(&partial, layout.file(FILE)).context("The lab's state cannot be written")
    }

    pub(crate) fn remove(layout: &Layout) {
        fs::remove_file(layout.file(FILE)).ok();
    }
}
