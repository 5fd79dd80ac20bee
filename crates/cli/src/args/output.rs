// SPDX-License-Identifier: AGPL-3.0-or-later
//! `--output`: how a response is shown.

use clap::ValueEnum;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Text,
    Json,
}
