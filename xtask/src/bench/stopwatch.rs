//! One command in a node, measured there: its time by the node's clock, and the bytes that it puts on the relocation link.
//!
//! The shell that measures starts nothing while the command runs: a fork costs 27 ms in an emulated node.

use std::time::Duration;

use anyhow::{Context, ensure};
use bascule_lab::node::quoted;
use bascule_lab::{Node, Output};

/// The nic of the relocation link in both nodes.
const NIC: &str = "eth1";
/// Between two looks at the nic's counter, in seconds.
const SAMPLE_PERIOD_S: f64 = 0.1;
/// The stream's throughput is that of its bytes between these parts of all: what comes before and after is no memory.
const STREAM_PART: (f64, f64) = (0.05, 0.95);

/// What was measured.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Measured {
    /// The command's exit code.
    pub(super) status: i32,
    /// From its start to its end, in seconds.
    pub(super) total_s: f64,
    /// Bytes that the nic sent meanwhile, headers included.
    pub(super) link_bytes: f64,
    /// Throughput of the memory stream in MB/s of 10⁶ bytes.
    pub(super) stream_mb_s: Option<f64>,
    /// What the command printed, errors included.
    pub(super) output: String,
}

/// Runs a command line of bash's and measures it.
pub(super) fn measure(node: &Node, command: &str, limit: Duration) -> anyhow::Result<Measured> {
    let Output { status, stdout, stderr } = node.run_for(&format!("bash -c {}", quoted(&script(command))), limit)?;
    ensure!(status == 0, "`{command}` on {} could not be measured ({status}): {}", node.name(), stderr.trim());
    parse(&stdout).with_context(|| format!("{} measured nothing: {stdout}", node.name()))
}

/// Ends what [`measure`] has left running when its connection broke.
pub(super) fn end(node: &Node) -> anyhow::Result<()> {
    let command = "[ ! -e /run/bench.pid ] || { pkill -TERM -P \"$(cat /run/bench.pid)\"; rm -f /run/bench.pid; }";
    node.ok(command).map(drop)
}

/// Waits on a fifo that nobody writes to, because sleep(1) would be a fork.
fn script(command: &str) -> String {
    format!(
        r#"counter=/sys/class/net/{NIC}/statistics/tx_bytes
[ -p /run/bench.fifo ] || mkfifo /run/bench.fifo
exec 3<>/run/bench.fifo
rm -f /run/bench.end
samples=()
read before <$counter
begin=$EPOCHREALTIME
{{ {command}
echo "$? $EPOCHREALTIME" >/run/bench.end; }} </dev/null >/run/bench.out 2>&1 &
echo $! >/run/bench.pid
until [ -e /run/bench.end ]; do
    read -t {SAMPLE_PERIOD_S} -u 3
    read bytes <$counter
    samples+=("$EPOCHREALTIME $bytes")
done
wait $!
rm -f /run/bench.pid
read after <$counter
read status end </run/bench.end
echo "$status $begin $end $before $after"
printf '%s\n' "${{samples[@]}}"
echo output
cat /run/bench.out
rm -f /run/bench.fifo /run/bench.end /run/bench.out"#
    )
}

fn parse(said: &str) -> Option<Measured> {
    let (measured, output) = said.split_once("output\n")?;
    let (head, samples) = measured.split_once('\n')?;
    let (status, numbers) = head.split_once(' ')?;
    let [begin, end, before, after] = numbers_of(numbers)?;
    let samples: Vec<[f64; 2]> = samples.lines().filter_map(numbers_of).collect();
    Some(Measured {
        status: status.parse().ok()?,
        total_s: end - begin,
        link_bytes: after - before,
        stream_mb_s: stream_mb_s([begin, before], &samples),
        output: output.to_owned(),
    })
}

fn numbers_of<const N: usize>(line: &str) -> Option<[f64; N]> {
    let numbers: Vec<f64> = line.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
    numbers.try_into().ok()
}

/// Each sample is a time in seconds and the counter in bytes then.
fn stream_mb_s(first: [f64; 2], samples: &[[f64; 2]]) -> Option<f64> {
    let [_, begin] = first;
    let [_, end] = *samples.last()?;
    let at = |part: f64| crossing(first, samples, begin + part * (end - begin));
    let took_s = at(STREAM_PART.1)? - at(STREAM_PART.0)?;
    let bytes = (STREAM_PART.1 - STREAM_PART.0) * (end - begin);
    (took_s > 0.0).then(|| bytes / took_s / 1e6)
}

/// When the counter reached a value.
fn crossing(first: [f64; 2], samples: &[[f64; 2]], value: f64) -> Option<f64> {
    let mut before = first;
    for &after in samples {
        if after[1] >= value && after[1] > before[1] {
            return Some(before[0] + (after[0] - before[0]) * (value - before[1]) / (after[1] - before[1]));
        }
        before = after;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_node_says_is_understood() {
        let said = "0 1700000000.500000 1700000002.750000 1000 101000\n\
                    1700000001.000000 51000\n1700000001.500000 101000\noutput\nMigration successful.\n";
        let measured = parse(said).expect("a measurement");
        assert_eq!((measured.status, measured.link_bytes), (0, 100_000.0));
        assert!((measured.total_s - 2.25).abs() < 1e-6);
        assert_eq!(measured.output, "Migration successful.\n");
    }

    #[test]
    fn half_a_measurement_is_none() {
        assert_eq!(parse("0 1.0 2.0 3\noutput\n"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn the_streams_throughput_leaves_out_what_comes_before_and_after() {
        // 4 s of preparation, 100 MB in 2 s, 4 s of completion.
        let samples = [[4.0, 0.0], [5.0, 50e6], [6.0, 100e6], [10.0, 100e6]];
        let rate = stream_mb_s([0.0, 0.0], &samples).expect("a rate");
        assert!((rate - 50.0).abs() < 1e-6, "{rate}");
        assert_eq!(stream_mb_s([0.0, 0.0], &[[1.0, 0.0]]), None);
    }
}
