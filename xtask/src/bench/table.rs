//! What `bench migrate` prints: medians, and ratios between them. Pure.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::figures::Summary;
use super::migrate::Move;
use super::ways::{Load, Way};

/// Everything that was measured.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    /// Throughput of the relocation link by iperf3, both directions, before and after each turn, in MB/s.
    pub(super) iperf_mb_s: Vec<f64>,
    /// The moves in their order.
    pub(super) moves: Vec<Move>,
}

/// What follows from it.
#[derive(Debug, Serialize)]
pub(super) struct Comparison {
    #[serde(rename = "iperf_summary_mb_s")]
    iperf: Option<Summary>,
    rows: Vec<Row>,
    ratios: Vec<Ratio>,
    #[serde(flatten)]
    report: Report,
}

/// One way under one load.
#[derive(Debug, Serialize)]
struct Row {
    load: Load,
    way: Way,
    #[serde(flatten)]
    summaries: BTreeMap<&'static str, Summary>,
    phases: BTreeMap<&'static str, Summary>,
}

/// One way's medians as parts of another's.
#[derive(Debug, Serialize)]
struct Ratio {
    load: Load,
    way: Way,
    against: Way,
    #[serde(flatten)]
    ratios: BTreeMap<&'static str, f64>,
}

/// Something that is measured of each move.
struct Metric {
    key: &'static str,
    heading: &'static str,
    digits: usize,
    of: fn(&Move) -> Option<f64>,
}

const STREAM: &str = "stream_mb_s";

const METRICS: [Metric; 5] = [
    Metric { key: "total_s", heading: "total s", digits: 1, of: |moved| Some(moved.total_s) },
    Metric { key: "downtime_s", heading: "downtime s", digits: 2, of: |moved| Some(moved.blackout.downtime_s) },
    Metric { key: "stop_s", heading: "stop s", digits: 2, of: |moved| Some(moved.blackout.stop_s) },
    Metric { key: "link_mb", heading: "link MB", digits: 0, of: |moved| Some(moved.link_mb) },
    Metric { key: STREAM, heading: "stream MB/s", digits: 1, of: |moved| moved.stream_mb_s },
];

/// What the receipt of `bascule migrate` says of its phases.
const PHASES: [&str; 7] =
    ["preflight_ms", "precopy_ms", "stop_and_copy_ms", "release_ms", "attach_ms", "handover_ms", "retire_ms"];

/// Who is compared with whom.
const RATIOS: [(Way, Way); 8] = [
    (Way::Bascule, Way::XlTcp),
    (Way::Bascule, Way::XlSsh),
    (Way::Bascule, Way::BasculeClear),
    (Way::BasculeRelayed, Way::XlSsh),
    (Way::BasculeRelayed, Way::BasculeClear),
    (Way::BasculeClear, Way::XlTcp),
    (Way::BasculeDual, Way::XlTcp),
    (Way::BasculeDual, Way::XlSsh),
];

const LEGEND: &str = "Medians; in brackets the smallest and the largest; n moves each. MB are 10\u{2076} bytes.
total: wall time of the command by the source's clock. downtime: from the last number of the guest's counter (20 a second) that came
from the source to the first from the destination, as the guests' LAN heard them. stop: how much less the guest's own clock went on
meanwhile. link: what the source's relocation nic sent. stream: throughput of the middle nine tenths of these bytes. xl runs with
the stock scripts block-drbd and vif-bridge; over TCP its stream goes through one socat at the source and none at the destination.";

impl Comparison {
    pub(super) fn of(report: Report) -> Self {
        let rows: Vec<Row> = Load::ALL
            .into_iter()
            .flat_map(|load| Way::ALL.map(|way| Row::of(&report.moves, load, way)))
            .filter(|row| !row.summaries.is_empty())
            .collect();
        let ratios = rows.iter().flat_map(|row| ratios_of(&rows, row)).collect();
        Self { iperf: Summary::of(report.iperf_mb_s.iter().copied()), rows, ratios, report }
    }

    /// Whether there is nothing to print.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The tables.
    pub(super) fn text(&self) -> String {
        let tables: Vec<String> = self.tables().iter().map(Table::to_string).collect();
        let link = self.iperf.map_or("iperf3 has not measured the link".to_owned(), |iperf| {
            format!("iperf3 over the same link: {} MB/s, n = {}", with_ends(iperf, 1), iperf.n)
        });
        format!("{}\n\n{link}.\n{LEGEND}", tables.join("\n\n"))
    }

    /// Those that have a row.
    fn tables(&self) -> Vec<Table> {
        let mut tables = vec![self.medians(), self.ratio_table(), self.phase_table()];
        tables.retain(|table| !table.is_empty());
        tables
    }

    fn medians(&self) -> Table {
        let headings = METRICS.iter().map(|metric| metric.heading);
        let mut table = table(["guest", "way"].into_iter().chain(headings).chain(["of iperf3", "n"]));
        for row in &self.rows {
            let mut cells = vec![row.load.label().to_owned(), row.way.label().to_owned()];
            cells.extend(METRICS.iter().map(|metric| {
                row.summaries.get(metric.key).map_or("-".to_owned(), |summary| with_ends(*summary, metric.digits))
            }));
            cells.push(ratio_text(self.part_of_iperf(row)));
            cells.push(row.summaries["total_s"].n.to_string());
            table.add_row(cells);
        }
        align(table)
    }

    fn part_of_iperf(&self, row: &Row) -> Option<f64> {
        row.summaries.get(STREAM)?.ratio_to(self.iperf?)
    }

    fn ratio_table(&self) -> Table {
        let headings = METRICS.iter().map(|metric| metric.key.rsplit_once("_mb").map_or(metric.key, |(name, _)| name));
        let headings = headings.map(|key| key.trim_end_matches("_s"));
        let mut table = table(["guest", "ratio of medians"].into_iter().chain(headings));
        for ratio in &self.ratios {
            let mut cells =
                vec![ratio.load.label().to_owned(), format!("{} / {}", ratio.way.label(), ratio.against.label())];
            cells.extend(METRICS.iter().map(|metric| ratio_text(ratio.ratios.get(metric.key).copied())));
            table.add_row(cells);
        }
        align(table)
    }

    /// Where the time of our own migrations goes, by their receipts.
    fn phase_table(&self) -> Table {
        let headings = PHASES.iter().map(|phase| phase.trim_end_matches("_ms"));
        let mut table = table(["guest", "phases, ms"].into_iter().chain(headings));
        for row in self.rows.iter().filter(|row| !row.phases.is_empty()) {
            let mut cells = vec![row.load.label().to_owned(), row.way.label().to_owned()];
            let median = |phase: &&str| row.phases.get(phase).map_or("-".to_owned(), |of| format!("{:.0}", of.median));
            cells.extend(PHASES.iter().map(median));
            table.add_row(cells);
        }
        align(table)
    }
}

impl Row {
    fn of(moves: &[Move], load: Load, way: Way) -> Self {
        let of_kind = || moves.iter().filter(|moved| moved.load == load && moved.way == way);
        let summary = |metric: &Metric| Some((metric.key, Summary::of(of_kind().filter_map(metric.of))?));
        let phase = |phase: &&'static str| {
            let of_receipt = |moved: &Move| moved.receipt.as_ref()?.get(*phase)?.as_f64();
            Some((*phase, Summary::of(of_kind().filter_map(of_receipt))?))
        };
        Self {
            load,
            way,
            summaries: METRICS.iter().filter_map(summary).collect(),
            phases: PHASES.iter().filter_map(phase).collect(),
        }
    }
}

fn ratios_of(rows: &[Row], row: &Row) -> Vec<Ratio> {
    let against = RATIOS.iter().filter(|(way, _)| *way == row.way).map(|(_, against)| *against);
    against
        .filter_map(|against| rows.iter().find(|other| other.load == row.load && other.way == against))
        .map(|other| Ratio { load: row.load, way: row.way, against: other.way, ratios: ratios_between(row, other) })
        .collect()
}

fn ratios_between(row: &Row, other: &Row) -> BTreeMap<&'static str, f64> {
    let ratio = |(key, summary): (&&'static str, &Summary)| Some((*key, summary.ratio_to(*other.summaries.get(key)?)?));
    row.summaries.iter().filter_map(ratio).collect()
}

/// A table in the form of Markdown, to be put into a page as it is.
pub(super) fn table<'a>(headings: impl Iterator<Item = &'a str>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(headings.collect::<Vec<_>>());
    table
}

/// Figures stand under each other, the first two columns are words.
fn align(mut table: Table) -> Table {
    table.column_iter_mut().skip(2).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table
}

/// A median with its ends.
pub(super) fn with_ends(Summary { median, min, max, .. }: Summary, digits: usize) -> String {
    format!("{median:.digits$} ({min:.digits$}\u{2013}{max:.digits$})")
}

fn ratio_text(ratio: Option<f64>) -> String {
    ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::blackout::Blackout;

    fn moved(way: Way, total_s: f64, downtime_s: f64) -> Move {
        Move {
            load: Load::Idle,
            way,
            from: 1,
            total_s,
            blackout: Blackout { downtime_s, stop_s: downtime_s },
            longest_silence_s: downtime_s,
            unheard: 0,
            link_mb: 130.0,
            stream_mb_s: Some(40.0),
            receipt: None,
        }
    }

    fn comparison() -> Comparison {
        let moves = vec![
            moved(Way::Bascule, 4.0, 0.5),
            moved(Way::Bascule, 6.0, 0.7),
            moved(Way::XlTcp, 20.0, 6.0),
            moved(Way::XlTcp, 30.0, 6.0),
        ];
        Comparison::of(Report { iperf_mb_s: vec![50.0, 50.0], moves })
    }

    #[test]
    fn the_table_has_medians_ends_and_ratios() {
        let text = comparison().text();
        for words in
            ["5.0 (4.0–6.0) |", "25.0 (20.0–30.0) |", "0.20 |", "0.10 |", "0.80 |", "50.0 (50.0–50.0) MB/s, n = 2"]
        {
            assert!(text.contains(words), "no {words:?} in\n{text}");
        }
    }

    #[test]
    fn what_was_not_measured_is_not_in_the_table() {
        let comparison = comparison();
        assert_eq!(comparison.rows.len(), 2);
        assert_eq!(comparison.ratios.len(), 1);
        assert_eq!(comparison.tables().len(), 2);
        assert!(Comparison::of(Report::default()).is_empty());
    }

    #[test]
    fn the_phases_are_those_of_the_receipts() {
        let receipt = Some(serde_json::json!({ "precopy_ms": 3210.9, "attach_ms": 400.0 }));
        let moves = vec![Move { receipt, ..moved(Way::Bascule, 4.0, 0.5) }];
        let text = Comparison::of(Report { iperf_mb_s: vec![], moves }).text();
        assert!(text.contains("3211") && text.contains("iperf3 has not measured the link"), "{text}");
    }

    #[test]
    fn the_json_has_medians_ratios_and_each_move() {
        let json = serde_json::to_value(comparison()).expect("JSON");
        assert_eq!(json.pointer("/rows/0/total_s/median"), Some(&5.0.into()));
        assert_eq!(json.pointer("/ratios/0/total_s"), Some(&0.2.into()));
        assert_eq!(json.pointer("/moves/3/way"), Some(&"xl-tcp".into()));
    }
}
