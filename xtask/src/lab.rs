//! `cargo xtask lab …`

use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::Context;
use bascule_lab::{DiskCache, Lab, Layout, Link, Options, push, run_keeper};
use clap::{Args, Subcommand, ValueEnum};

use crate::say::{answer, say};

/// The words after `lab`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Directory of the lab, when it is not target/lab [env: BASCULE_LAB_DIR]
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Build what is missing and start both nodes; does nothing when they run.
    Up(Up),
    /// End both nodes; nothing of the lab runs afterwards.
    Down,
    /// What runs.
    Status,
    /// Run a command on a node, or log in.
    #[command(trailing_var_arg = true)]
    Ssh {
        node: Node,
        #[arg(allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Build our programs and install them on both nodes.
    Push,
    /// What a node printed on its console, or of both; with --collect, everything that there is to know, into target/lab/logs.
    Logs {
        node: Option<Node>,
        #[arg(long, value_name = "NAME")]
        collect: Option<String>,
    },
    /// Pull the cable of a link: replication, relocation or lan.
    CutLink {
        link: Link,
        /// Put it back.
        #[arg(long)]
        restore: bool,
    },
    /// Take the power from a node.
    PowerOff { node: Node },
    /// Switch a node on.
    PowerOn { node: Node },
    /// The process that stays with a lab.
    #[command(hide = true)]
    Keeper,
}

/// How the lab is to be.
#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Keep the disks as the last `down` left them.
    #[arg(long)]
    keep: bool,
    /// Kernel modules that the nodes load instead of the kernel's own, for instance DRBD 9.
    #[arg(long, value_name = "DIR")]
    drbd_modules: Option<PathBuf>,
    /// What QEMU does with writes to the replicated disks.
    #[arg(long, value_enum, default_value_t)]
    disk_cache: Cache,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Cache {
    #[default]
    Unsafe,
    Writeback,
    Writethrough,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Node {
    Node1,
    Node2,
}

impl Node {
    fn nr(self) -> u8 {
        match self {
            Self::Node1 => 1,
            Self::Node2 => 2,
        }
    }
}

/// Does it.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let dir = arguments.dir;
    let attach = || Lab::attach_in(dir.clone());
    match arguments.action {
        Action::Up(options) => up(dir, options)?,
        Action::Down => Lab::down(dir)?,
        Action::Status => return status(dir),
        Action::Ssh { node, command } => return Err(ssh(&attach()?, node, &command)),
        Action::Push => push_programs(&attach()?)?,
        Action::Logs { node, collect } => logs(dir, node, collect)?,
        Action::CutLink { link, restore: false } => attach()?.cut(link)?,
        Action::CutLink { link, restore: true } => attach()?.restore(link)?,
        Action::PowerOff { node } => attach()?.node(node.nr()).power_off()?,
        Action::PowerOn { node } => attach()?.node(node.nr()).power_on()?,
        Action::Keeper => run_keeper()?,
    }
    Ok(ExitCode::SUCCESS)
}

fn up(dir: Option<PathBuf>, options: Up) -> anyhow::Result<()> {
    let lab = start(Options {
        keep_disks: options.keep,
        drbd_modules: options.drbd_modules,
        disk_cache: match options.disk_cache {
            Cache::Unsafe => DiskCache::Unsafe,
            Cache::Writeback => DiskCache::Writeback,
            Cache::Writethrough => DiskCache::Writethrough,
        },
        dir,
        ..Options::new(say)
    })?;
    say(&format!(
        "the lab is up; `cargo xtask lab ssh node1`, or ssh -F {} node1",
        lab.layout().dir().join("ssh_config").display()
    ));
    Ok(())
}

/// Brings a lab up whose keeper is this program.
pub(crate) fn start(options: Options) -> anyhow::Result<Lab> {
    let program = env::current_exe().context("xtask does not know where it lies")?;
    let keeper = [&program.to_string_lossy(), "lab", "keeper"].map(str::to_owned).to_vec();
    Lab::up(&Options { keeper, ..options })
}

/// Builds our programs and installs them.
pub(crate) fn push_programs(lab: &Lab) -> anyhow::Result<()> {
    say("building bascule, block-drbd and vif-bridge");
    let programs = push::build()?;
    say("installing them on both nodes");
    lab.push(&programs)
}

/// Exit code 1 when it does not run.
fn status(dir: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let Ok(lab) = Lab::attach_in(dir) else {
        answer("down");
        return Ok(ExitCode::FAILURE);
    };
    let status = lab.status()?;
    for (node, (on, port)) in lab.nodes().iter().zip(status.nodes_on.iter().zip(status.ssh_ports)) {
        let power = if *on { "on" } else { "off" };
        answer(&format!("{}: {power}, ssh on 127.0.0.1:{port}", node.name()));
    }
    for link in Link::ALL {
        let cut = status.cut.iter().any(|name| name == link.name());
        answer(&format!("{}: {}", link.name(), if cut { "cut" } else { "connected" }));
    }
    if !status.hub_alive {
        answer("the hub of the guests' network is gone: `cargo xtask lab down`, then up");
    }
    Ok(ExitCode::SUCCESS)
}

/// Becomes ssh; returns only when it cannot.
fn ssh(lab: &Lab, node: Node, command: &[String]) -> anyhow::Error {
    let mut ssh = Command::new("ssh");
    ssh.arg("-F").arg(lab.layout().dir().join("ssh_config")).arg(lab.node(node.nr()).name()).args(command);
    anyhow::Error::new(ssh.exec()).context("ssh cannot be started")
}

fn logs(dir: Option<PathBuf>, node: Option<Node>, collect: Option<String>) -> anyhow::Result<()> {
    if let Some(name) = collect {
        let collected = Lab::attach_in(dir)?.collect_logs(&name)?;
        answer(&collected.display().to_string());
        return Ok(());
    }
    let layout = Layout::new(dir.as_deref())?;
    for node in node.map_or(vec![Node::Node1, Node::Node2], |node| vec![node]) {
        let console = layout.console(node.nr());
        let text = fs::read(&console).with_context(|| format!("{} cannot be read", console.display()))?;
        answer(&String::from_utf8_lossy(&text));
    }
    Ok(())
}
