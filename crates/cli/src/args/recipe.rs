// SPDX-License-Identifier: AGPL-3.0-or-later
//! `shoal recipe`, as it is typed.

use std::path::PathBuf;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum RecipeCommand {
    /// Check recipes against the schema and its rules, without a controller. Exit status 4 if one is
    /// not valid.
    Validate {
        /// JSON or YAML; `-` reads standard input.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}
