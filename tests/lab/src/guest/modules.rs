//! The kernel modules of an unpacked linux-image package, which carries no modules.dep: what a module needs is read from its `.modinfo`.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use object::{Object, ObjectSection};

use super::kernel::decompress;

/// The modules of one kernel.
#[derive(Debug)]
pub struct ModuleTree {
    paths: HashMap<String, PathBuf>,
    builtin: HashSet<String>,
}

/// A module, ready to be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Its name as the kernel spells it, with underscores.
    pub name: String,
    /// The uncompressed .ko.
    pub contents: Vec<u8>,
}

impl ModuleTree {
    /// Finds the modules of the one kernel in the tree.
    ///
    /// # Errors
    /// No kernel's modules, or those of several.
    pub fn of(kernel_tree: &Path) -> anyhow::Result<Self> {
        let release = find_release(kernel_tree)?;
        let mut paths = HashMap::new();
        collect(&release.join("kernel"), &mut paths)?;
        let builtin = fs::read_to_string(release.join("modules.builtin")).unwrap_or_default();
        let builtin = builtin.lines().map(|line| module_name(Path::new(line))).collect();
        Ok(Self { paths, builtin })
    }

    /// The modules named and all that they depend on, each after those that it needs. Built-in ones are left out.
    ///
    /// # Errors
    /// A name that is neither a module of the tree nor built in, or a module that cannot be read.
    pub fn load_order(&self, names: &[&str]) -> anyhow::Result<Vec<Module>> {
        let mut seen = HashSet::new();
        let mut order = Vec::new();
        for name in names {
            self.visit(&normalized(name), &mut seen, &mut order)?;
        }
        Ok(order)
    }

    fn visit(&self, name: &str, seen: &mut HashSet<String>, order: &mut Vec<Module>) -> anyhow::Result<()> {
        if self.builtin.contains(name) || !seen.insert(name.to_owned()) {
            return Ok(());
        }
        let path = self.paths.get(name).with_context(|| format!("The kernel has no module {name}"))?;
        let contents = decompress(&fs::read(path)?)?;
        for dependency in dependencies(&contents).with_context(|| format!("{} is no module", path.display()))? {
            self.visit(&dependency, seen, order)?;
        }
        order.push(Module { name: name.to_owned(), contents });
        Ok(())
    }
}

/// lib/modules/RELEASE, or usr/lib/modules/RELEASE in packages of newer Debian releases.
fn find_release(kernel_tree: &Path) -> anyhow::Result<PathBuf> {
    let mut found = Vec::new();
    for modules in ["lib/modules", "usr/lib/modules"] {
        let Ok(entries) = fs::read_dir(kernel_tree.join(modules)) else {
            continue;
        };
        for entry in entries {
            found.push(entry?.path());
        }
    }
    ensure!(found.len() == 1, "{} holds the modules of {} kernels, not of one", kernel_tree.display(), found.len());
    Ok(found.remove(0))
}

fn collect(dir: &Path, paths: &mut HashMap<String, PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("{} is not readable", dir.display()))? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            collect(&path, paths)?;
        } else if is_module(&path) {
            paths.insert(module_name(&path), path);
        }
    }
    Ok(())
}

/// `*.ko`, or `*.ko.xz` and the like.
fn is_module(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(".ko") || name.contains(".ko.")
}

fn module_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    normalized(name.split('.').next().unwrap_or_default())
}

/// File names have hyphens where the kernel has underscores.
fn normalized(name: &str) -> String {
    name.replace('-', "_")
}

/// The `depends=` entry of the section `.modinfo`, which is a row of NUL-terminated strings.
fn dependencies(module: &[u8]) -> anyhow::Result<Vec<String>> {
    let file = object::File::parse(module)?;
    let section = file.section_by_name(".modinfo").context("There is no section .modinfo")?;
    let modinfo = section.data()?;
    let mut entries = modinfo.split(|byte| *byte == 0).filter_map(|entry| std::str::from_utf8(entry).ok());
    let depends = entries.find_map(|entry| entry.strip_prefix("depends=")).unwrap_or_default();
    Ok(depends.split(',').filter(|name| !name.is_empty()).map(normalized).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_kernels() {
        assert_eq!(module_name(Path::new("kernel/drivers/net/xen-netfront.ko")), "xen_netfront");
        assert_eq!(module_name(Path::new("ext4.ko.xz")), "ext4");
        assert!(is_module(Path::new("ext4.ko.xz")) && !is_module(Path::new("modules.order")));
    }

    #[test]
    fn what_is_no_elf_is_no_module() {
        assert!(dependencies(b"not an ELF file").is_err());
    }
}
