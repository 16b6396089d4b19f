//! What the relocation link carries at best: iperf3 between the nodes.

use std::time::Duration;

use anyhow::Context;
use bascule_lab::Node;
use bascule_lab::pair::Pair;
use serde_json::Value;

const IPERF_PORT: u16 = 5201;
/// How long one direction is measured, in seconds.
const MEASURED_S: u32 = 3;
/// How long one measurement may take on a machine that is far too busy.
const LIMIT: Duration = Duration::from_secs(60);

/// TCP's throughput in each direction, in MB/s of 10⁶ bytes.
pub(super) fn measure(pair: &Pair) -> anyhow::Result<[f64; 2]> {
    Ok([one_way(pair, 1)?, one_way(pair, 2)?])
}

fn one_way(pair: &Pair, from: u8) -> anyhow::Result<f64> {
    let (client, server) = (pair.node(from), pair.node(3 - from));
    server.ok(&format!("setsid timeout {} iperf3 -s -1 </dev/null >/run/bench-iperf 2>&1 &", LIMIT.as_secs()))?;
    wait_for_listener(pair, server, IPERF_PORT)?;
    let report = client.ok_for(&format!("iperf3 -c {} -t {MEASURED_S} -J", server.relocation_address()), LIMIT)?;
    received_mb_s(&report).with_context(|| format!("iperf3 on {} reports no throughput", client.name()))
}

/// Waits until something in the node listens on the port.
pub(super) fn wait_for_listener(pair: &Pair, node: &Node, port: u16) -> anyhow::Result<()> {
    pair.wait(&format!("{} listens on port {port}", node.name()), || {
        Ok(node.run(&format!("ss -Hltn sport = :{port} | grep -q ."))?.success())
    })
}

fn received_mb_s(report: &str) -> Option<f64> {
    let report: Value = serde_json::from_str(report).ok()?;
    let bits_per_s = report.pointer("/end/sum_received/bits_per_second")?.as_f64()?;
    Some(bits_per_s / 8e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iperf_reports_what_was_received() {
        let report = r#"{"end":{"sum_sent":{"bits_per_second":9},"sum_received":{"bits_per_second":400000000.0}}}"#;
        assert_eq!(received_mb_s(report), Some(50.0));
        assert_eq!(received_mb_s(r#"{"error":"unable to connect"}"#), None);
    }
}
