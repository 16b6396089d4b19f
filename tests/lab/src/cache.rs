//! Things that are dear to build, kept under a hash of what they were built from. An entry is there whole or not at all.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

use crate::command::{as_root, run};
use crate::layout::hex;

/// Older entries of the same name that stay beside a new one.
const OLDER_KEPT: usize = 1;

/// Returns the directory `name-HASH`, where the hash is that of `ingredients`; when it is not there, `build` fills it.
/// Labs wait for each other here, so that nothing is built twice.
pub(crate) fn entry(
    cache: &Path,
    name: &str,
    ingredients: &str,
    build: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<PathBuf> {
    let path = cache.join(format!("{name}-{}", hex(&Sha256::digest(ingredients)[..8])));
    if path.exists() {
        return Ok(path);
    }
    let _lock = lock(cache)?;
    if path.exists() {
        return Ok(path);
    }
    fill(cache, &path, ingredients, build).with_context(|| format!("The lab's {name} cannot be built"))?;
    prune(cache, name, &path)?;
    Ok(path)
}

fn lock(cache: &Path) -> anyhow::Result<Flock<File>> {
    let file = File::create(cache.join("lock"))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno).context("The cache cannot be locked")
}

fn fill(
    cache: &Path,
    path: &Path,
    ingredients: &str,
    build: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    sweep(cache)?;
    let unfinished = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(cache)?;
    fs::write(unfinished.path().join("ingredients"), ingredients)?;
    build(unfinished.path())?;
    fs::rename(unfinished.keep(), path)?;
    Ok(())
}

const UNFINISHED: &str = "unfinished-";

/// Removes what builds that were killed left behind; the lock says that none is running.
fn sweep(cache: &Path) -> anyhow::Result<()> {
    for entry in cache.read_dir()? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Labs hold links to what they use, so an old entry may go while one runs.
fn prune(cache: &Path, name: &str, current: &Path) -> anyhow::Result<()> {
    let mut older = Vec::new();
    for entry in cache.read_dir()? {
        let entry = entry?;
        let file_name = entry.file_name();
        let of_this_name = file_name.to_string_lossy().rsplit_once('-').is_some_and(|(start, _)| start == name);
        if of_this_name && entry.path() != current {
            older.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    older.sort();
    older.reverse();
    older.iter().skip(OLDER_KEPT).try_for_each(|(_, path)| remove(path))
}

/// A root file system in the making belongs to root, whoever started it.
fn remove(path: &Path) -> anyhow::Result<()> {
    run(as_root("rm").args(["-rf", "--one-file-system", "--"]).arg(path))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_built_once_and_a_failed_build_leaves_none() {
        let cache = tempfile::tempdir().unwrap();
        let fail = entry(cache.path(), "thing", "a", |_| anyhow::bail!("no"));
        assert!(fail.is_err());
        let built = entry(cache.path(), "thing", "a", |dir| Ok(fs::write(dir.join("x"), "1")?)).unwrap();
        let again = entry(cache.path(), "thing", "a", |_| anyhow::bail!("built twice")).unwrap();
        assert_eq!(built, again);
        assert_eq!(fs::read_to_string(again.join("x")).unwrap(), "1");
    }

    #[test]
    fn one_older_entry_stays() {
        let cache = tempfile::tempdir().unwrap();
        for ingredients in ["a", "b", "c"] {
            entry(cache.path(), "thing", ingredients, |_| Ok(())).unwrap();
        }
        entry(cache.path(), "thing-two", "a", |_| Ok(())).unwrap();
        let names = cache.path().read_dir().unwrap().flatten().filter(|e| e.path().is_dir()).count();
        assert_eq!(names, 3);
    }
}
