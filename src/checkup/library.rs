//! The libxl that this program uses: its release, and the paths that were built into it.

use std::fs;
use std::path::PathBuf;

/// What its file is called, before its release.
const NAME: &str = "/libxenlight.so.";

/// What can be read out of the library's file; nothing where it is not as expected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Library {
    /// Its release of Xen, such as `4.17`.
    pub(super) release: Option<String>,
    /// Where its own programs are (`LIBEXEC_BIN`).
    pub(super) programs: Option<PathBuf>,
    /// Where it looks for hotplug programs (`XEN_SCRIPT_DIR`).
    pub(super) scripts: Option<PathBuf>,
    /// Its device model (`QEMU_XEN_PATH`).
    pub(super) qemu: Option<PathBuf>,
}

impl Library {
    pub(super) fn look() -> Library {
        let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let Some((file, release)) = mapped(&maps) else { return Library::default() };
        let built_in = fs::read(file).map(|bytes| Library::of(&bytes)).unwrap_or_default();
        Library { release: Some(release), ..built_in }
    }

    fn of(bytes: &[u8]) -> Library {
        let mut library = Library::default();
        let strings = bytes.split(|byte| *byte == 0).filter(|string| string.first() == Some(&b'/'));
        for path in strings.filter_map(|string| std::str::from_utf8(string).ok()) {
            let slot = match path {
                _ if path.contains('%') => continue,
                // The others of its kind are file names with a directory before them.
                _ if path.ends_with("/bin") && path.contains("xen") => &mut library.programs,
                _ if path.ends_with("/xen/scripts") => &mut library.scripts,
                _ if path.rsplit('/').next().is_some_and(|name| name.contains("qemu-system-")) => &mut library.qemu,
                _ => continue,
            };
            slot.get_or_insert_with(|| PathBuf::from(path));
        }
        library
    }
}

/// The library's file and release, from the list of what is mapped into a process (proc(5)).
fn mapped(maps: &str) -> Option<(PathBuf, String)> {
    let line = maps.lines().find(|line| line.contains(NAME))?;
    let path = &line[line.find('/')?..];
    let version = path.rsplit_once(NAME)?.1;
    let release = version.split('.').take(2).collect::<Vec<_>>().join(".");
    Some((PathBuf::from(path), release))
}

/// The first two numbers of a version.
pub(super) fn release(version: &str) -> String {
    let numbers = version.split('.').take(2).map(|part| {
        let digits = part.find(|char: char| !char.is_ascii_digit()).unwrap_or(part.len());
        &part[..digits]
    });
    numbers.collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paths_of_a_library_are_found_in_it() {
        let bytes = b"\x7fELF\0/%s/bin\0/usr/lib/xen-4.17/bin\0/usr/bin/pygrub\0/etc/xen/scripts\0/usr/libexec/xen-qemu-system-i386\0\xff";
        let library = Library::of(bytes);
        assert_eq!(library.programs, Some("/usr/lib/xen-4.17/bin".into()));
        assert_eq!(library.scripts, Some("/etc/xen/scripts".into()));
        assert_eq!(library.qemu, Some("/usr/libexec/xen-qemu-system-i386".into()));
        assert_eq!(Library::of(b"nothing"), Library::default());
    }

    #[test]
    fn this_machines_library_is_as_expected() {
        let library = Library::look();
        assert!(library.release.as_deref().is_some_and(|release| release.starts_with("4.")), "{library:?}");
        assert!(library.programs.is_some() && library.scripts.is_some(), "{library:?}");
    }

    #[test]
    fn releases_are_compared_by_their_two_numbers() {
        for (version, expected) in [("4.17.5", "4.17"), ("4.20-rc1", "4.20"), ("4.17", "4.17"), ("", "")] {
            assert_eq!(release(version), expected);
        }
        let maps = "7f00-7f01 r--p 00000000 08:01 12   /usr/lib/x86_64-linux-gnu/libxenlight.so.4.17.0\n";
        assert_eq!(mapped(maps), Some(("/usr/lib/x86_64-linux-gnu/libxenlight.so.4.17.0".into(), "4.17".into())));
    }
}
