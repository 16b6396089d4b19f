//! xl is the oracle: what `xl create -n` prints for a file, or that it refuses it, beside what we make of the same file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use bascule::domcfg::{self, Facts, Host};
use bascule::xen::topology::Topology;
use bascule_lab::{Lab, Node};
use serde_json::Value;

#[path = "../xlcfg/compare.rs"]
mod compare;

use compare::{Case, cases, differences};

/// How long a node may take for its half of the files. A start of xl takes most of a second under emulation.
const FILES_LIMIT: Duration = Duration::from_secs(600);
/// A line of its own behind what one command printed; its exit code follows.
const END: &str = "----- exit code";

/// How a command ended, and what it printed on its standard output.
#[derive(Debug)]
struct Printed {
    code: i32,
    text: String,
}

#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn xl_says_of_every_file_what_we_say() {
    let lab = Lab::attach().expect("the lab runs: cargo xtask lab up");
    let folders = ["corpus", "differs", "stricter", "refused"];
    let all: Vec<Case> = folders.into_iter().flat_map(cases).collect();
    let printed = by_xl(&lab, &all).expect("the nodes answer");
    let wrong: Vec<String> = all.iter().zip(&printed).flat_map(|(case, printed)| judge(case, printed)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// One line for each place where xl and we do not say the same.
fn judge(case: &Case, xl: &Printed) -> Vec<String> {
    let name = &case.name;
    let ours = domcfg::parse(name, &case.text, &node()).map(|loaded| loaded.config);
    let takes_it = !name.starts_with("refused/");
    if takes_it != (xl.code == 0) {
        return vec![format!("{name}: xl ended with {}: {}", xl.code, xl.text)];
    }
    match (ours, name.starts_with("corpus/") || name.starts_with("differs/")) {
        (Ok(config), true) => match serde_json::from_str(&xl.text) {
            Ok(json) => compared(case, &differences(config.value(), &json)),
            Err(error) => vec![format!("{name}: xl prints no JSON ({error})")],
        },
        (Err(_), false) => Vec::new(),
        (Ok(_), false) => vec![format!("{name}: we take it")],
        (Err(error), true) => vec![error.to_string()],
    }
}

fn compared(case: &Case, found: &BTreeMap<String, String>) -> Vec<String> {
    let expected = case.expected_differences();
    let unexpected = found.iter().filter(|(place, _)| !expected.contains(place));
    let unexpected = unexpected.map(|(place, values)| format!("{}: {place}: {values}", case.name));
    let gone = expected.iter().filter(|place| !found.contains_key(*place));
    unexpected.chain(gone.map(|place| format!("{}: {place}: no longer differs", case.name))).collect()
}

/// The whole way, through our program on a node: what it asks of the host, and that libxl reads what we write.
#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn our_program_on_a_host_prints_what_xl_prints_there() {
    const FILES: [&str; 6] =
        ["corpus/cpus-all", "corpus/cpus-nodes", "corpus/vnuma", "corpus/pvgrub", "corpus/vsnd", "corpus/whole-hvm"];
    let lab = Lab::attach().expect("the lab runs: cargo xtask lab up");
    let all: Vec<Case> = cases("corpus").into_iter().filter(|case| FILES.contains(&case.name.as_str())).collect();
    assert_eq!(all.len(), FILES.len());
    let xl = on_node(lab.node(1), "xl create -n", &all).expect("xl answers");
    let ours = on_node(lab.node(1), "bascule create -q -n", &all).expect("bascule answers");
    for ((case, xl), ours) in all.iter().zip(&xl).zip(&ours) {
        let json = |printed: &Printed| serde_json::from_str::<Value>(&printed.text).expect(&case.name);
        assert_eq!(json(ours), json(xl), "{}", case.name);
    }
}

/// What xl.conf says of all domains, in three ways; the last leaves a domain without CPUs, or is no number.
const SETTINGS: [&str; 4] = [
    "vif.default.bridge='br1'\nvif.default.script='vif-x'\nvif.default.gatewaydev='eth9'\nvif.default.backend='net'\nblkdev_start='xvdq'\n\
     claim_mode=0\nrun_hotplug_scripts=0\nmax_grant_frames=64\nmax_maptrack_frames=128\nmax_grant_version=1\n",
    "defaultbridge='old'\nvif.default.bridge='br1'\nvifscript='vif-x'\nvm.cpumask='0-5'\nvm.pv.cpumask='1-3'\nvm.hvm.cpumask='4,5'\n",
    "vm.cpumask='0'\nvm.hvm.cpumask='6'\nvm.pv.cpumask='all'\n",
    "max_grant_frames='many'\n",
];
/// Domains that say some of it themselves.
const DOMAINS: [(&str, &str); 3] = [
    ("pv", "vcpus=2\nvif=['', 'bridge=own,script=vif-y', 'backend=other,netdev=eth1']\nmax_grant_frames=7"),
    ("pvh", "vcpus=3\ncpus=['3-7', '5']"),
    ("hvm", "vcpus=2\ncpus='2-6'\nvif=['model=e1000']\nmax_grant_version=2"),
];

#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn what_xl_conf_says_of_all_domains_is_taken_as_xl_takes_it() {
    const XL_CONF: &str = "/etc/xen/xl.conf";
    let lab = Lab::attach().expect("the lab runs: cargo xtask lab up");
    let node = lab.node(2);
    let cases = DOMAINS.map(|(kind, keys)| Case {
        name: kind.to_owned(),
        text: format!(
            "name='a'\nuuid='6d3a4a52-0b3c-4c8e-9a57-000000000001'\ntype='{kind}'\nkernel='/k'\nmemory=64\n{keys}\n"
        ),
    });
    let before = node.ok(&format!("cat {XL_CONF}")).expect("the node answers");
    let printed = SETTINGS.map(|settings| -> anyhow::Result<_> {
        node.write_file(XL_CONF, 0o644, settings.as_bytes())?;
        Ok((on_node(node, "xl create -n", &cases)?, on_node(node, "bascule create -q -n", &cases)?))
    });
    node.write_file(XL_CONF, 0o644, before.as_bytes()).expect("it is put back");
    for (settings, printed) in SETTINGS.iter().zip(printed) {
        let (xl, ours) = printed.expect("the node answers");
        for ((case, xl), ours) in cases.iter().zip(&xl).zip(&ours) {
            let json = |printed: &Printed| serde_json::from_str::<Value>(&printed.text).ok();
            assert_eq!(ours.code == 0, xl.code == 0, "{} with {settings}: {} {}", case.name, ours.code, xl.code);
            assert_eq!(json(ours), json(xl), "{} with {settings}", case.name);
        }
    }
}

/// The nodes of the lab have one CPU each.
fn node() -> Host {
    Host::known(Facts {
        topology: Topology { cpus_max: 1, cpus_online: 1, nodes: vec![vec![0]] },
        firmware_directories: vec![PathBuf::from("/usr/lib/xen-4.17/boot")],
    })
}

/// What xl prints for each; both nodes take a half.
fn by_xl(lab: &Lab, all: &[Case]) -> anyhow::Result<Vec<Printed>> {
    let (first, second) = all.split_at(all.len() / 2);
    thread::scope(|scope| {
        let others = scope.spawn(|| on_node(lab.node(2), "xl create -n", second));
        let mut printed = on_node(lab.node(1), "xl create -n", first)?;
        printed.extend(others.join().ok().context("A thread panicked")??);
        Ok(printed)
    })
}

/// Runs a command for each file, all by one script: an ssh login costs more than a start of xl. Its own words are built into the
/// shell, so that nothing is forked but the command.
fn on_node(node: &Node, command: &str, files: &[Case]) -> anyhow::Result<Vec<Printed>> {
    let script: String = files
        .iter()
        .map(|case| {
            let text = case.text.replace('\'', r"'\''");
            let run = format!("{command} /run/oracle.cfg 2>/dev/null; code=$?");
            format!("printf %s '{text}' >/run/oracle.cfg\n{run}; echo; echo '{END}' $code\n")
        })
        .collect();
    node.write_file("/run/oracle.sh", 0o755, script.as_bytes())?;
    let output = node.ok_for("sh /run/oracle.sh", FILES_LIMIT)?;
    let printed = split(&output)?;
    ensure!(printed.len() == files.len(), "{} answers for {} files", printed.len(), files.len());
    Ok(printed)
}

fn split(output: &str) -> anyhow::Result<Vec<Printed>> {
    let mut printed = Vec::new();
    let mut text = String::new();
    for line in output.lines() {
        match line.strip_prefix(END) {
            Some(code) => printed.push(Printed { code: code.trim().parse()?, text: std::mem::take(&mut text) }),
            None => text.extend([line, "\n"]),
        }
    }
    Ok(printed)
}
