//! Programs that measure and are not ours: the examples of a package, as they would be released.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use bascule_lab::layout::workspace;
use serde_json::Value;

use crate::say::say;

/// Builds them and returns where each is.
pub(super) fn build(package: &str, examples: &[&str]) -> anyhow::Result<HashMap<String, PathBuf>> {
    say(&format!("building the examples of {package}"));
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(workspace())
        .args(["build", "--release", "--quiet", "--package", package])
        .args(examples.iter().flat_map(|name| ["--example", name]))
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .context("cargo cannot be started")?;
    ensure!(output.status.success(), "The examples of {package} do not build");
    Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(executable).collect())
}

/// Name and path of the program that a message of cargo's announces (cargo's reference, "External tools").
fn executable(message: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(message).ok()?;
    let path = message.get("executable")?.as_str()?;
    Some((message.pointer("/target/name")?.as_str()?.to_owned(), PathBuf::from(path)))
}
