//! Our programs, built and put into both nodes.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::lab::Lab;
use crate::layout::{hex, workspace};
use crate::node::Node;

/// Programs, and where they belong. What Xen ships there is kept beside it as `NAME.stock`, so that the two can be compared.
const PROGRAMS: [(&str, &str); 3] = [
    ("bascule", "/usr/sbin/bascule"),
    ("block-drbd", "/etc/xen/scripts/block-drbd"),
    ("vif-bridge", "/etc/xen/scripts/vif-bridge"),
];

/// Builds the programs as they are released and returns where each is.
///
/// # Errors
/// They do not build; cargo has said why.
pub fn build() -> anyhow::Result<HashMap<String, PathBuf>> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(workspace())
        .args([
            "build",
            "--release",
            "--quiet",
            "--package",
            "bascule-xen",
            "--bins",
            "--message-format=json-render-diagnostics",
        ])
        .stderr(Stdio::inherit())
        .output()
        .context("cargo cannot be started")?;
    ensure!(output.status.success(), "The programs do not build");
    let messages = String::from_utf8_lossy(&output.stdout);
    Ok(messages.lines().filter_map(executable).collect())
}

impl Lab {
    /// Installs the programs on both nodes; what is there already is left alone. A node that is switched off forgets them
    /// and gets them again when it is switched on, so a copy is kept.
    ///
    /// # Errors
    /// A program is missing from `programs`, or a node does not take it.
    pub fn push(&self, programs: &HashMap<String, PathBuf>) -> anyhow::Result<()> {
        let programs = &keep_copies(&self.layout().programs(), programs)?;
        thread::scope(|scope| {
            let nodes = self.nodes().iter().map(|node| scope.spawn(|| install_all(node, programs)));
            let nodes: Vec<_> = nodes.collect();
            nodes.into_iter().try_for_each(|node| node.join().unwrap_or_else(|_| bail!("The push panicked")))
        })
    }
}

/// Copies under the lab's own directory, each whole or not there.
fn keep_copies(dir: &Path, programs: &HashMap<String, PathBuf>) -> anyhow::Result<HashMap<String, PathBuf>> {
    fs::create_dir_all(dir)?;
    for (name, _) in PROGRAMS {
        let program = programs.get(name).with_context(|| format!("{name} was not built"))?;
        let part = dir.join(format!("{name}.part"));
        fs::copy(program, &part).with_context(|| format!("{} cannot be copied", program.display()))?;
        fs::rename(part, dir.join(name))?;
    }
    Ok(copies(dir))
}

fn copies(dir: &Path) -> HashMap<String, PathBuf> {
    PROGRAMS.iter().map(|(name, _)| ((*name).to_owned(), dir.join(name))).collect()
}

/// Installs what was pushed since the lab came up, if anything was, on a node that was switched on.
pub(crate) fn install_again(node: &Node, dir: &Path) -> anyhow::Result<()> {
    match dir.exists() {
        true => install_all(node, &copies(dir)),
        false => Ok(()),
    }
}

fn install_all(node: &Node, programs: &HashMap<String, PathBuf>) -> anyhow::Result<()> {
    let paths: Vec<&str> = PROGRAMS.iter().map(|(_, path)| *path).collect();
    let sums = node.run(&format!("sha256sum {}", paths.join(" ")))?.stdout;
    let mut changed = false;
    for (name, path) in PROGRAMS {
        let program = programs.get(name).with_context(|| format!("{name} was not pushed"))?;
        let contents = fs::read(program)?;
        let sum = hex(&Sha256::digest(&contents));
        if !sums.lines().any(|line| line == format!("{sum}  {path}")) {
            keep_stock(node, Path::new(path))?;
            node.write_file(path, 0o755, &contents)?;
            changed = true;
        }
    }
    if changed {
        // A daemon starts its workers from the program that it is itself.
        node.ok("pkill -TERM -f '^bascule serve'; while pgrep -f '^bascule serve' >/dev/null; do sleep 0.1; done")?;
    }
    Ok(())
}

fn keep_stock(node: &Node, path: &Path) -> anyhow::Result<()> {
    let path = path.display();
    node.ok(&format!("[ ! -e {path} ] || [ -e {path}.stock ] || mv {path} {path}.stock"))?;
    Ok(())
}

/// Name and path of the program that a message of cargo's announces (cargo's reference, "External tools").
fn executable(message: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(message).ok()?;
    let path = message.get("executable")?.as_str()?;
    let name = message.get("target")?.get("name")?.as_str()?;
    Some((name.to_owned(), PathBuf::from(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_names_the_programs() {
        let message = r#"{"reason":"compiler-artifact","target":{"name":"bascule"},"executable":"/t/bascule"}"#;
        assert_eq!(executable(message), Some(("bascule".to_owned(), PathBuf::from("/t/bascule"))));
        assert_eq!(executable(r#"{"reason":"compiler-artifact","target":{"name":"x"},"executable":null}"#), None);
    }
}
