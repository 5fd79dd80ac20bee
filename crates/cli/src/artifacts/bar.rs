// SPDX-License-Identifier: AGPL-3.0-or-later
//! The progress bar of a transfer.

use indicatif::{ProgressBar, ProgressStyle};

/// Makes a bar on a terminal; it is hidden if standard error is not a terminal.
pub fn bar(label: &'static str, size: u64) -> ProgressBar {
    let template = "{prefix:>8} [{bar:40}] {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}";
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(size).with_style(style).with_prefix(label)
}
