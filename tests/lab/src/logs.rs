//! What there is to read after a test: the kernel's and the hypervisor's messages, the consoles, DRBD's state.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::lab::Lab;
use crate::node::Node;

/// What is asked of a node, by the name of the file that it goes to.
const QUESTIONS: [(&str, &str); 5] = [
    ("dmesg", "dmesg"),
    ("xl-dmesg", "xl dmesg"),
    ("domains", "xl list -v; xenstore-ls -f"),
    ("drbd", "cat /proc/drbd; drbdsetup status --verbose --statistics 2>/dev/null || true"),
    ("processes", "ps axfo pid,ppid,stat,wchan:24,etime,args"),
];

/// Programs that are at work in a node may have stopped it; then the log says that it did not answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Files that nodes keep themselves: the toolstack's, the guests' consoles, our daemon's.
const KEPT: &str = "tail -n +1 /var/log/xen/*.log /var/log/xen/console/*.log /var/log/bascule.log 2>/dev/null || true";

impl Lab {
    /// Collects what both nodes have to say into `logs/NAME` of the lab's directory, and returns that. A node that is off or does not
    /// answer has its console only.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn collect_logs(&self, name: &str) -> anyhow::Result<PathBuf> {
        let dir = self.layout().logs().join(name);
        fs::create_dir_all(&dir)?;
        for node in self.nodes() {
            let file = |what: &str| dir.join(format!("{}.{what}", node.name()));
            fs::copy(node.console(), file("console"))?;
            for (what, command) in QUESTIONS.into_iter().chain([("logs", KEPT)]) {
                fs::write(file(what), answer(node, command))?;
            }
        }
        Ok(dir)
    }
}

fn answer(node: &Node, command: &str) -> String {
    if !node.is_on() {
        return format!("{} is off\n", node.name());
    }
    match node.run_for(command, ANSWER_LIMIT) {
        Ok(output) => output.stdout + &output.stderr,
        Err(error) => format!("{error:#}\n"),
    }
}
