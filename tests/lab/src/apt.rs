//! The machine's own apt sources: which of them are Debian's, which versions they offer, single packages from them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

use crate::command::run;
use crate::host;

const SUITES: [&str; 3] = ["bookworm", "bookworm-updates", "bookworm-security"];
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A package and the version that the machine's sources offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) package: String,
    pub(crate) version: String,
}

/// Lines for a sources.list: Debian 12's suites from where this machine takes them; foreign archives left out.
pub(crate) fn debian_sources() -> anyhow::Result<String> {
    let mut lines = sources_in(&run(Command::new("apt-cache").arg("policy"))?);
    if lines.is_empty() {
        host::update_package_lists()?;
        lines = sources_in(&run(Command::new("apt-cache").arg("policy"))?);
    }
    ensure!(!lines.is_empty(), "The machine's apt sources do not offer Debian's bookworm");
    Ok(lines.join("\n") + "\n")
}

/// The versions that `apt-get install` would take, in the order of `packages`.
pub(crate) fn candidates(packages: &[&str]) -> anyhow::Result<Vec<Candidate>> {
    match candidates_known(packages) {
        Ok(found) => Ok(found),
        Err(_) => {
            host::update_package_lists()?;
            candidates_known(packages)
        }
    }
}

/// Fetches one package (`name` or `name=version`) into `dir` and returns its file.
pub(crate) fn download(package: &str, dir: &Path) -> anyhow::Result<PathBuf> {
    let fetch = || {
        run(Command::new("apt-get").current_dir(dir).args(["-q", "download", "-o", "APT::Sandbox::User=root", package]))
    };
    if fetch().is_err() {
        host::update_package_lists()?;
        fetch().with_context(|| format!("{package} cannot be fetched from the machine's apt sources"))?;
    }
    let prefix = format!("{}_", package.split('=').next().unwrap_or(package));
    for entry in dir.read_dir()? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            return Ok(entry.path());
        }
    }
    bail!("apt-get download of {package} left no file in {}", dir.display())
}

/// A package's files, without installing it. They stay in `cache`, by version.
///
/// # Errors
/// The machine's apt sources do not have it, or it cannot be unpacked.
pub fn unpacked(package: &str, cache: &Path, say: fn(&str)) -> anyhow::Result<PathBuf> {
    let unpack = || {
        let found = candidates(&[package])?;
        let version = &found.first().context("apt names no version")?.version;
        unpack_version(package, version, cache, say)
    };
    unpack().or_else(|_| {
        // The archive may have a newer version than the machine's lists, and no longer the one that they name.
        host::update_package_lists()?;
        unpack()
    })
}

fn unpack_version(package: &str, version: &str, cache: &Path, say: fn(&str)) -> anyhow::Result<PathBuf> {
    let root = cache.join(format!("{package}-{}", version.replace([':', '/'], "_")));
    if root.exists() {
        return Ok(root);
    }
    say(&format!("fetching {package} {version}"));
    // Unpacked beside its place and then renamed: what stands there is always whole.
    let part = cache.join(format!("{package}-part-{}", std::process::id()));
    fs::create_dir_all(&part)?;
    let done = download(&format!("{package}={version}"), &part).and_then(|archive| {
        run(Command::new("dpkg-deb").arg("-x").arg(archive).arg(part.join("root")))?;
        Ok(fs::rename(part.join("root"), &root)?)
    });
    drop(fs::remove_dir_all(&part));
    match done {
        Err(_) if root.exists() => Ok(root), // another run was faster
        done => done.map(|()| root),
    }
}

/// apt's own settings for proxies and certificates, for an apt that works on another root.
pub(crate) fn transport_options() -> anyhow::Result<Vec<String>> {
    let dump = run(Command::new("apt-config").arg("dump"))?;
    Ok(dump
        .lines()
        .filter(|line| line.starts_with("Acquire::http") && !line.ends_with("\"\";"))
        .map(str::to_owned)
        .collect())
}

/// `apt-cache policy` prints a line with priority and address, then one with the release's origin and code name.
fn sources_in(policy: &str) -> Vec<String> {
    let lines: Vec<&str> = policy.lines().map(str::trim).collect();
    let mut found = Vec::new();
    for pair in lines.windows(2) {
        let words: Vec<&str> = pair[0].split_whitespace().collect();
        let [_priority, uri, place, "amd64", "Packages"] = words[..] else { continue };
        let Some((suite, component)) = place.split_once('/') else { continue };
        let from_debian = pair[1].contains("o=Debian,");
        if from_debian && component == "main" && SUITES.contains(&suite) {
            found.push(format!("deb [signed-by={KEYRING}] {uri} {suite} main"));
        }
    }
    found
}

fn candidates_known(packages: &[&str]) -> anyhow::Result<Vec<Candidate>> {
    let found = candidates_in(&run(Command::new("apt-cache").arg("policy").args(packages))?);
    for package in packages {
        ensure!(
            found.iter().any(|candidate| candidate.package == *package),
            "The machine's apt sources do not offer {package}"
        );
    }
    Ok(found)
}

fn candidates_in(policy: &str) -> Vec<Candidate> {
    let mut found = Vec::new();
    let mut package = "";
    for line in policy.lines() {
        if let Some(name) = line.strip_suffix(':').filter(|name| !name.starts_with(' ')) {
            package = name;
        } else if let Some(version) = line.strip_prefix("  Candidate: ").filter(|version| *version != "(none)") {
            found.push(Candidate { package: package.to_owned(), version: version.to_owned() });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_debians_own_suites_are_taken() {
        let policy = "Package files:\n 100 /var/lib/dpkg/status\n     release a=now\n \
            500 https://example.org/pg bookworm/main amd64 Packages\n     release o=Somebody,n=bookworm,c=main\n \
            500 http://mirror.example/debian bookworm/main amd64 Packages\n     release v=12.15,o=Debian,n=bookworm,c=main\n \
            500 http://mirror.example/debian trixie/main amd64 Packages\n     release v=13,o=Debian,n=trixie,c=main\n";
        assert_eq!(
            sources_in(policy),
            [
                "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.example/debian bookworm main"
            ]
        );
    }

    #[test]
    fn candidates_are_read_and_none_is_not_one() {
        let policy = "kmod:\n  Installed: 30\n  Candidate: 30+1\n  Version table:\n     30 500\nxen:\n  Installed: (none)\n  Candidate: (none)\n";
        assert_eq!(candidates_in(policy), [Candidate { package: "kmod".into(), version: "30+1".into() }]);
    }
}
