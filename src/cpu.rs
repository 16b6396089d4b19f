//! What a domain sees of the processor, compared with what the destination's hypervisor could give it.
//!
//! Xen 4.17 checks the number of leaves when a domain is restored, and takes away without a word each feature that the host has not
//! (policy.c, `x86_cpu_policies_are_compatible`; cpuid.c, `recalculate_cpuid_policy`): the guest, which has looked long ago, fails later.

mod names;

use std::fmt;

use serde::{Deserialize, Serialize};

use self::names::WORDS;
use crate::ids::DomId;

/// Whose view is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Viewer {
    /// A domain's, as it is.
    Domain(DomId),
    /// The most that a PV domain may have here.
    AnyPv,
    /// The most that an HVM or PVH domain may have here.
    AnyHvm,
}

impl Viewer {
    /// Any domain of a type of libxl's: `pv`, `pvh` or `hvm`.
    #[must_use]
    pub fn any(kind: &str) -> Viewer {
        if kind == "pv" { Viewer::AnyPv } else { Viewer::AnyHvm }
    }
}

/// What CPUID says of one leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Its number.
    pub leaf: u32,
    /// The number below it, where it has some.
    pub subleaf: Option<u32>,
    /// eax, ebx, ecx, edx.
    pub registers: [u32; 4],
}

/// A view of the processor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The highest basic leaf.
    pub leaf_max: u32,
    /// The highest subleaf of leaf 7.
    pub subleaf_max: u32,
    /// The highest extended leaf.
    pub extended_leaf_max: u32,
    /// The features as Xen numbers them: 32 a word (cpufeatureset.h); those of CPUID alone, words that are missing are 0.
    pub features: Vec<u32>,
}

/// One feature, by its place in [`Policy::features`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    word: usize,
    bit: u32,
}

/// A register that has features.
#[derive(Debug)]
struct Word {
    leaf: u32,
    subleaf: Option<u32>,
    register: Register,
    /// The bits that are not compared: what an administrator chooses for any host, what the system sets by itself, and what tells of a lack.
    ignored: &'static [u32],
    /// The bits' names where libxl takes them, else as xen-cpuid prints them.
    names: &'static [(u32, &'static str)],
}

#[derive(Clone, Copy, Debug)]
enum Register {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

impl Policy {
    /// Out of everything that CPUID says.
    #[must_use]
    pub fn from_leaves(leaves: &[Leaf]) -> Policy {
        let registers = |number: u32, below: Option<u32>| {
            let found = leaves.iter().find(|leaf| leaf.leaf == number && leaf.subleaf == below);
            found.map_or([0; 4], |leaf| leaf.registers)
        };
        Policy {
            leaf_max: registers(0, None)[0],
            subleaf_max: registers(7, Some(0))[0],
            extended_leaf_max: registers(0x8000_0000, None)[0],
            features: WORDS.iter().map(|word| registers(word.leaf, word.subleaf)[word.register as usize]).collect(),
        }
    }

    /// The features that a domain with this policy has and a host, whose most this is, has not.
    #[must_use]
    pub fn lacking(&self, host: &Policy) -> Vec<Feature> {
        let word_of = |policy: &Policy, word: usize| policy.features.get(word).copied().unwrap_or(0);
        let lacks = |feature: &Feature| {
            let lacking = word_of(self, feature.word) & !word_of(host, feature.word);
            lacking & (1 << feature.bit) != 0 && !feature.is_ignored()
        };
        let words = self.features.len().min(WORDS_MAX);
        (0..words).flat_map(|word| (0..u32::BITS).map(move |bit| Feature { word, bit })).filter(lacks).collect()
    }

    /// Whether a host, whose most this is, gives fewer leaves: Xen refuses to restore such a domain.
    #[must_use]
    pub fn has_more_leaves_than(&self, host: &Policy) -> bool {
        self.leaf_max > host.leaf_max
            || self.subleaf_max > host.subleaf_max
            || self.extended_leaf_max > host.extended_leaf_max
    }
}

/// More words than any Xen has: what comes from another host has its bounds.
const WORDS_MAX: usize = 64;

impl Feature {
    fn is_ignored(self) -> bool {
        WORDS.get(self.word).is_some_and(|word| word.ignored.contains(&self.bit))
    }

    /// Its name, where it has one that this program knows.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        let (_, name) = WORDS.get(self.word)?.names.iter().find(|(bit, _)| *bit == self.bit)?;
        Some(name)
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.name(), WORDS.get(self.word)) {
            (Some(name), _) => f.write_str(name),
            (None, Some(Word { leaf, subleaf, register, .. })) => {
                let register = ["eax", "ebx", "ecx", "edx"][*register as usize];
                let below = subleaf.map(|number| format!(":{number}")).unwrap_or_default();
                write!(f, "bit {} of {leaf:#x}{below}.{register}", self.bit)
            }
            (None, None) => write!(f, "bit {} of word {}", self.bit, self.word),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xen::cpuid::Cpuid;

    fn leaf(leaf: u32, subleaf: Option<u32>, registers: [u32; 4]) -> Leaf {
        Leaf { leaf, subleaf, registers }
    }

    fn policy(features: &[u32]) -> Policy {
        Policy { features: features.to_vec(), ..Policy::default() }
    }

    fn named(domain: &Policy, host: &Policy) -> Vec<String> {
        domain.lacking(host).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_policy_is_read_from_its_leaves() {
        let leaves = [
            leaf(0, None, [0xd, 1, 2, 3]),
            leaf(1, None, [0, 0, 1 << 25, 1]),
            leaf(7, Some(0), [2, 1 << 16, 0, 0]),
            leaf(0xd, Some(1), [1, 0, 0, 0]),
            leaf(0x8000_0000, None, [0x8000_0008, 0, 0, 0]),
        ];
        let found = Policy::from_leaves(&leaves);
        assert_eq!((found.leaf_max, found.subleaf_max, found.extended_leaf_max), (0xd, 2, 0x8000_0008));
        assert_eq!(named(&found, &Policy::default()), ["fpu", "aes", "xsaveopt", "avx512f"]);
    }

    #[test]
    fn what_the_host_lacks_is_named() {
        let host = policy(&[0xffff_ffff, !(1 << 28)]);
        assert_eq!(named(&policy(&[1, 1 << 28 | 1]), &host), ["avx"]);
        assert!(policy(&[1, 1]).lacking(&host).is_empty());
        // Words that one of the two does not know.
        assert_eq!(named(&policy(&[0, 0, 1 << 29]), &host), ["lm"]);
        assert!(policy(&[1]).lacking(&policy(&[1, 1, 1])).is_empty());
        assert_eq!(named(&policy(&[&[0; 40][..], &[4]].concat()), &host), ["bit 2 of word 40"]);
        assert_eq!(named(&policy(&[1 << 10]), &policy(&[])), ["bit 10 of 0x1.edx"]);
        // HTT and OSXSAVE.
        assert!(policy(&[1 << 28, 1 << 27]).lacking(&policy(&[])).is_empty());
        assert!(policy(&[u32::MAX; 1 << 10]).lacking(&policy(&[])).len() <= WORDS_MAX * 32);
    }

    #[test]
    fn leaves_are_compared() {
        let host = Policy { leaf_max: 0xd, subleaf_max: 0, extended_leaf_max: 0x8000_0008, features: Vec::new() };
        assert!(!host.has_more_leaves_than(&host));
        assert!(Policy { subleaf_max: 1, ..host.clone() }.has_more_leaves_than(&host));
        assert!(Policy { leaf_max: 0x14, ..host.clone() }.has_more_leaves_than(&host));
    }

    /// libxl has a table of its own: where it knows a name, the name stands for the same bit.
    #[test]
    fn the_names_are_libxls() {
        let (mut known, mut unknown) = (0, Vec::new());
        for word in &WORDS {
            for (bit, name) in word.names {
                let mut policy = Cpuid::new();
                match policy.flag(&format!("{name}=1")) {
                    Ok(()) => {
                        let json = policy.json().expect("JSON");
                        let register = ["eax", "ebx", "ecx", "edx"][word.register as usize];
                        // As Xen 4.18 has it, or as before.
                        let first = json.pointer("/cpuid/0").or(json.pointer("/0")).expect("a leaf");
                        let bits = first[register].as_str().unwrap_or_default();
                        let place = 31 - usize::try_from(*bit).expect("small");
                        assert_eq!(bits.find('1'), Some(place), "{name}: {json}");
                        assert_eq!(first["leaf"].as_u64(), Some(word.leaf.into()), "{name}: {json}");
                        known += 1;
                    }
                    Err(_) => unknown.push(*name),
                }
            }
        }
        assert!(known > 130, "{unknown:?}");
    }
}
