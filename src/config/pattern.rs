//! Paths of this host that others may name: one path, or many by `*`.

use std::fmt;
use std::path::{Component, Path};
use std::str::FromStr;

use regex::Regex;

/// A path in which each `*` stands for any characters but slashes.
#[derive(Clone, Debug)]
pub struct PathPattern {
    text: String,
    regex: Regex,
}

impl FromStr for PathPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<PathPattern, String> {
        if !is_plain(Path::new(text)) || text.contains('\0') {
            let text = super::value::shortened(text);
            return Err(format!("{text:?} is not a path that begins with / and has no .. in it"));
        }
        let parts: Vec<String> = text.split('*').map(regex::escape).collect();
        let regex = Regex::new(&format!("^(?s:{})$", parts.join("[^/]*"))).map_err(|error| error.to_string())?;
        Ok(PathPattern { text: text.to_owned(), regex })
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for PathPattern {
    fn eq(&self, other: &PathPattern) -> bool {
        self.text == other.text
    }
}

impl PathPattern {
    /// Whether the pattern is for this path. A link in `/dev` is what it is called, for root alone makes those; elsewhere a link is
    /// what it leads to.
    #[must_use]
    pub fn allows(&self, path: &Path) -> bool {
        let matches = |path: &Path| path.to_str().is_some_and(|text| self.regex.is_match(text));
        if !is_plain(path) || !matches(path) {
            return false;
        }
        match path.canonicalize() {
            Ok(real) => matches(&real) || (is_device(path) && is_device(&real)),
            Err(_) => true,
        }
    }
}

/// Whether the path is one of udev's. Anybody may write to /dev/shm.
fn is_device(path: &Path) -> bool {
    path.starts_with("/dev") && !path.starts_with("/dev/shm")
}

fn is_plain(path: &Path) -> bool {
    path.is_absolute() && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(pattern: &str, path: &str) -> bool {
        pattern.parse::<PathPattern>().expect("a pattern").allows(Path::new(path))
    }

    #[test]
    fn a_star_stays_in_its_directory() {
        for (pattern, path) in
            [("/a/b", "/a/b"), ("/a/*.iso", "/a/x.iso"), ("/a/san-*", "/a/san-1"), ("/a/*/c", "/a/b/c")]
        {
            assert!(allows(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("/a/b", "/a/bc"),
            ("/a/b", "/a"),
            ("/a/*.iso", "/a/b/x.iso"),
            ("/a/*.iso", "/a/xaiso"),
            ("/a/*", "/a/../etc"),
            ("/a/*", "a/b"),
            ("/a/*", "/a/b\n/c"),
        ] {
            assert!(!allows(pattern, path), "{pattern} {path}");
        }
        for wrong in ["", "a/b", "/a/../b", "/a\0"] {
            assert!(wrong.parse::<PathPattern>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_link_leads_nowhere_else_but_in_dev() {
        let dir = tempfile::tempdir().expect("a directory");
        let link = dir.path().join("cd.iso");
        std::os::unix::fs::symlink("/etc/passwd", &link).expect("a link");
        let pattern = format!("{}/*", dir.path().display());
        assert!(!allows(&pattern, link.to_str().expect("a name")));
        std::fs::write(dir.path().join("real.iso"), "").expect("written");
        assert!(allows(&pattern, dir.path().join("real.iso").to_str().expect("a name")));
    }
}
