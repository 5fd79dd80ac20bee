// SPDX-License-Identifier: AGPL-3.0-or-later
//! `shoal artifact uploads`, as it is typed.

#[derive(Debug, clap::Subcommand)]
pub enum Uploads {
    /// All open uploads, the oldest first: who began them, when, how much they have.
    List,
    /// Cancel an upload; its room is free at once.
    Cancel {
        /// As `artifact uploads list` shows it, or its beginning where only one id begins so.
        id: String,
    },
}
