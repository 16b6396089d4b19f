//! `cargo xtask demo`: the old recipe, step by step, and what replaces it. Each step shows what is typed and what is seen.

use std::time::Duration;

use anyhow::ensure;
use bascule_lab::lan;
use bascule_lab::pair::{Pair, VM0};
use bascule_lab::witness::Window;
use bascule_lab::{Lab, Options, Order, ensure_packages};
use clap::Args;

use crate::lab;
use crate::say::{answer, say};

/// The words after `demo`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// End the lab at the end; otherwise it is left running, and a second demo begins at once.
    #[arg(long)]
    down: bool,
}

const LIMIT: Duration = Duration::from_secs(600);

/// Runs all of it; ends with an error as soon as something is not as it should be.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    ensure_packages(say)?;
    let lab = lab::start(Options::new(say))?;
    lab::push_programs(&lab)?;
    let pair = Pair::new(lab);
    say("ending what an earlier run may have left, starting the relocation daemons");
    pair.reset()?;
    let shown = Demo { pair: &pair }.show();
    if arguments.down {
        Lab::down(None)?;
    } else {
        say(
            "the lab is left running: look around with `cargo xtask lab ssh node1`, end it with `cargo xtask lab down`",
        );
    }
    shown
}

struct Demo<'a> {
    pair: &'a Pair,
}

impl Demo<'_> {
    fn show(&self) -> anyhow::Result<()> {
        let since = lan::monotonic_now();
        title("Two hosts, DRBD in sync, no domain");
        self.both("bascule list")?;
        self.both("bascule status r0")?;

        title("A domain is created on node1: its disk is drbd:r0");
        self.types(1, "grep ^disk /etc/xen/vm0.cfg")?;
        self.types(1, "bascule create /etc/xen/vm0.cfg")?;
        self.pair.heard(VM0, 1)?;
        self.both("bascule list")?;

        title("A second start on node2 is refused, to bascule and to xl");
        self.is_refused(2, "bascule create /etc/xen/vm0.cfg")?;
        self.is_refused(2, "xl create /etc/xen/vm0.cfg")?;

        title("To node2 in the old way: both Primary for a moment, as DRBD's own events show it");
        self.moves(1, "--handover dual")?;

        title("And back with never two Primaries");
        self.moves(2, "")?;
        self.both("bascule list")?;

        title("What the guest says, which counted on its disk and its network all the while");
        self.guest_is_whole(since)?;
        self.types(1, "bascule shutdown --wait vm0")?;
        title("Done");
        Ok(())
    }

    fn moves(&self, from: u8, options: &str) -> anyhow::Result<()> {
        let to = 3 - from;
        let since = lan::monotonic_now();
        let watch = self.pair.watch_roles()?;
        self.types(from, &format!("bascule migrate {options} --live vm0 node{to}").replace("  ", " "))?;
        self.pair.heard(VM0, to)?;
        let seen = watch.end(VM0.resource)?;
        match seen.two_primaries.as_slice() {
            [] => answer("    DRBD's events on both nodes: never two Primaries"),
            two => answer(&format!("    DRBD's events: two Primaries, first seen by {}", two[0])),
        }
        ensure!(seen.two_primaries.is_empty() != options.contains("dual"), "{seen:?}");
        self.pair.check(VM0, to)?;
        let story = self.pair.lab().witness().story(VM0.name, Window::since(since));
        let silence = story.longest_silence();
        answer(&format!(
            "    the guest was not heard for {:.2} s, and came from nodes {:?}",
            (silence.to - silence.from).as_secs_f64(),
            story.nodes()
        ));
        Ok(())
    }

    fn guest_is_whole(&self, since: Duration) -> anyhow::Result<()> {
        let witness = self.pair.lab().witness();
        let answered = witness.ask(VM0.name, Order::Verify, LIMIT)?;
        answer(&format!("    {}", answered.text));
        let story = witness.story(VM0.name, Window::since(since));
        let errors = story.errors();
        ensure!(
            errors.memory == 0 && errors.io == 0 && errors.holes == 0 && story.lost_writes().is_empty(),
            "{errors:?}"
        );
        ensure!(story.doubled().is_none(), "{:?}", story.doubled());
        answer("    memory intact, no number missing on the disk, no I/O error, one copy at any time");
        Ok(())
    }

    fn both(&self, command: &str) -> anyhow::Result<()> {
        self.types(1, command)?;
        self.types(2, command)
    }

    /// Shows what is typed on a node and what comes back; it must succeed.
    fn types(&self, nr: u8, command: &str) -> anyhow::Result<()> {
        answer(&format!("node{nr}# {command}"));
        let output = self.pair.node(nr).run_for(command, LIMIT)?;
        show(&output.stdout);
        show(&output.stderr);
        ensure!(output.success(), "`{command}` on node{nr} ended with {}", output.status);
        Ok(())
    }

    fn is_refused(&self, nr: u8, command: &str) -> anyhow::Result<()> {
        answer(&format!("node{nr}# {command}"));
        let output = self.pair.node(nr).run_for(command, LIMIT)?;
        show(&output.stdout);
        show(&output.stderr);
        ensure!(!output.success(), "`{command}` on node{nr} was not refused");
        self.pair.check(VM0, 1)
    }
}

fn title(text: &str) {
    answer(&format!("\n== {text}"));
}

fn show(text: &str) {
    text.lines().for_each(|line| answer(&format!("    {line}")));
}
