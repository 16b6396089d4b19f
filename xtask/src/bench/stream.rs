//! `cargo xtask bench stream`: the codec of the migration stream alone, on this machine, one core.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use clap::Args;
use comfy_table::CellAlignment;
use serde::Deserialize;
use serde_json::Value;

use super::figures::Summary;
use super::table::{table, with_ends};
use super::{examples, write_json};
use crate::say::{answer, say};

/// Code and decode the memory of guests, and compare with copying it
///
/// The codec of the migration stream (xen-stream) runs alone, on this machine and on one core, over the memory of guests: each image by each method,
/// there and back, compared byte for byte. A file FILE.later beside an image FILE is the same guest some time later: the pages that differ
/// are sent once more, as in the next round of a migration. Without an image, memory is made up, and called synthetic.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Measure each file of this directory: raw memory, as of `xl dump-core`, or saved domains
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Measure the memory in this file of `bascule save` or `xl save`; may be given again
    #[arg(long, value_name = "FILE")]
    saved: Vec<PathBuf>,
    /// Times that each is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Write the figures, each single one included, to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// The program: xen-stream's example.
const MEASURE: &str = "measure";
/// What the name of a later image ends with.
const LATER: &str = "later";

/// What it prints. Rates are in 10⁹ bytes of the stream a second.
#[derive(Debug, Deserialize)]
struct Report {
    memcpy_gb_s: Vec<f64>,
    zero_gb_s: Vec<f64>,
    images: Vec<Image>,
}

#[derive(Debug, Deserialize)]
struct Image {
    name: String,
    methods: Vec<Measured>,
}

#[derive(Debug, Deserialize)]
struct Measured {
    method: String,
    /// All of the memory.
    first: Tally,
    /// What was sent again.
    second: Tally,
    encode_gb_s: Vec<f64>,
    encode_second_gb_s: Vec<f64>,
    decode_gb_s: Vec<f64>,
}

/// `xen_stream::Tally`, as far as it is printed.
#[derive(Debug, Deserialize)]
struct Tally {
    plain_bytes: u64,
    coded_bytes: u64,
    zero_pages: u64,
    same_pages: u64,
    delta_pages: u64,
    plain_pages: u64,
}

/// Measures and prints.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let files = arguments.files()?;
    let programs = examples::build("xen-stream", &[MEASURE])?;
    let program = programs.get(MEASURE).context("The example was not built")?;
    say(&format!("measuring, {} times each", arguments.runs));
    let json = measure(program, arguments.runs, &files)?;
    let report = Report::deserialize(&json)?;
    answer(&report.text()?);
    arguments.json.as_deref().map_or(Ok(()), |file| write_json(file, &json))
}

impl Arguments {
    /// All images that are named.
    fn files(&self) -> anyhow::Result<Vec<PathBuf>> {
        let mut files = self.images.as_deref().map_or(Ok(Vec::new()), images)?;
        files.extend(self.saved.iter().cloned());
        match files.iter().find(|file| !file.is_file()) {
            Some(missing) => bail!("{} is no file", missing.display()),
            None => Ok(files),
        }
    }
}

fn images(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("{} cannot be read", dir.display()))?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    let is_image = |path: &PathBuf| path.is_file() && path.extension().is_none_or(|extension| extension != LATER);
    let mut images: Vec<PathBuf> = paths.into_iter().filter(is_image).collect();
    ensure!(!images.is_empty(), "{} has no image", dir.display());
    images.sort();
    Ok(images)
}

fn measure(program: &Path, runs: u32, files: &[PathBuf]) -> anyhow::Result<Value> {
    let mut command = Command::new(program);
    command.arg(runs.to_string()).args(files).stderr(Stdio::inherit());
    let output = command.output().with_context(|| format!("{} cannot be started", program.display()))?;
    ensure!(output.status.success(), "{MEASURE} failed: {}", output.status);
    serde_json::from_slice(&output.stdout).context("What was measured cannot be read")
}

const LEGEND: &str = "Medians; in brackets the smallest and the largest. GB are 10\u{2079} bytes of the stream as libxc has it (in); out is what goes over the link.
One core. ratio: bytes of the coded stream of those of libxc's. again: the pages that had changed when they were sent a second time.
decode: both rounds.";

impl Report {
    fn text(&self) -> anyhow::Result<String> {
        let (memcpy, zero) = (summary(&self.memcpy_gb_s)?, summary(&self.zero_gb_s)?);
        let of_memcpy = zero.ratio_to(memcpy).unwrap_or_default();
        let mut table = table(HEADINGS.into_iter());
        for image in &self.images {
            for measured in &image.methods {
                table.add_row(measured.cells(&image.name)?);
            }
        }
        table.column_iter_mut().skip(2).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
        let pages: Vec<String> = self.images.iter().filter_map(Image::pages).collect();
        Ok(format!(
            "{table}\n\n{}\nmemcpy: {} GB/s. Zero detection: {} GB/s, {of_memcpy:.2} of memcpy.\n{LEGEND}",
            pages.join("\n"),
            with_ends(memcpy, 1),
            with_ends(zero, 1),
        ))
    }
}

const HEADINGS: [&str; 8] =
    ["memory", "method", "ratio", "in GB/s", "out GB/s", "decode GB/s", "again: ratio", "again: in GB/s"];

impl Image {
    /// What its pages were.
    fn pages(&self) -> Option<String> {
        // The last compresses most: it has deltas where there are any.
        let Measured { first, second, .. } = self.methods.last()?;
        let Tally { zero_pages, plain_pages, .. } = first;
        let again = second.zero_pages + second.same_pages + second.delta_pages + second.plain_pages;
        let Tally { delta_pages, .. } = second;
        let name = &self.name;
        Some(format!(
            "{name}: {zero_pages} pages of zeros, {plain_pages} others; {again} again, {delta_pages} of them as deltas."
        ))
    }
}

impl Measured {
    fn cells(&self, image: &str) -> anyhow::Result<Vec<String>> {
        let encode = summary(&self.encode_gb_s)?;
        let (first, second) = (self.first.ratio(), self.second.ratio());
        let has_second = self.second.plain_pages + self.second.delta_pages + self.second.same_pages > 0;
        let again = |text: String| if has_second { text } else { "-".to_owned() };
        Ok(vec![
            image.to_owned(),
            self.method.clone(),
            format!("{first:.4}"),
            with_ends(encode, 2),
            format!("{:.2}", encode.median * first),
            with_ends(summary(&self.decode_gb_s)?, 2),
            again(format!("{second:.4}")),
            again(with_ends(summary(&self.encode_second_gb_s)?, 2)),
        ])
    }
}

impl Tally {
    #[expect(clippy::cast_precision_loss, reason = "four digits are shown")]
    fn ratio(&self) -> f64 {
        self.coded_bytes as f64 / self.plain_bytes.max(1) as f64
    }
}

fn summary(rates: &[f64]) -> anyhow::Result<Summary> {
    Summary::of(rates.iter().copied()).context("Nothing was measured")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_ratios_and_rates() {
        let tally = |coded: u64, delta_pages: u64| {
            serde_json::json!({ "plain_bytes": 1000, "coded_bytes": coded, "zero_pages": 7, "same_pages": 0,
                "delta_pages": delta_pages, "plain_pages": 3 })
        };
        let report = serde_json::json!({ "memcpy_gb_s": [10.0], "zero_gb_s": [8.0], "images": [{ "name": "idle", "methods": [{
            "method": "lz4", "first": tally(250, 0), "second": tally(125, 5),
            "encode_gb_s": [2.0, 1.0, 4.0], "encode_second_gb_s": [3.0], "decode_gb_s": [5.0] }] }] });
        let text = Report::deserialize(&report).expect("a report").text().expect("a table");
        for words in [
            "0.2500 |",
            "2.00 (1.00–4.00)",
            "0.50 |",
            "0.1250 |",
            "0.80 of memcpy",
            "7 pages of zeros, 3 others; 15 again, 5",
        ] {
            assert!(text.contains(words), "no {words:?} in\n{text}");
        }
    }

    #[test]
    fn later_images_are_none_of_their_own() {
        let dir = std::env::temp_dir().join(format!("bascule-images-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        assert!(images(&dir).is_err());
        for name in ["b", "a.raw", "a.raw.later"] {
            fs::write(dir.join(name), b"").expect("a file");
        }
        let found = images(&dir).expect("images");
        fs::remove_dir_all(&dir).expect("ours");
        assert_eq!(found, [dir.join("a.raw"), dir.join("b")]);
    }
}
