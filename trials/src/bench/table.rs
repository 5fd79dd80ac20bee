// SPDX-License-Identifier: AGPL-3.0-or-later
//! The table that every benchmark prints, and statistics over samples.

use std::time::Duration;

/// One row of the table.
pub struct Row {
    metric: String,
    ours: String,
    peer: String,
    ratio: String,
}

impl Row {
    pub fn new(metric: &str, ours: String, peer: String, ratio: Option<f64>) -> Row {
        let ratio = ratio.map(|ratio| format!("{ratio:.2} x")).unwrap_or_default();
        Row { metric: metric.into(), ours, peer, ratio }
    }
}

pub fn print(rows: &[Row]) {
    println!("{:<44} {:>16} {:>32} {:>9}", "metric", "ours", "peer", "ratio");
    for row in rows {
        println!("{:<44} {:>16} {:>32} {:>9}", row.metric, row.ours, row.peer, row.ratio);
    }
}

/// Returns the value below which this share of the samples lies.
pub fn percentile(samples: &mut [Duration], part: f64) -> Duration {
    samples.sort();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let index = (samples.len() as f64 * part) as usize;
    samples.get(index.min(samples.len().saturating_sub(1))).copied().unwrap_or_default()
}
