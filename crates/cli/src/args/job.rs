// SPDX-License-Identifier: AGPL-3.0-or-later
//! Which job is meant, and which are listed.

/// Longest list by default: what one screen scrolls back.
const LIST: usize = 100;

/// A job by its id, or the last one of a server.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Which {
    /// The job's id, or its beginning where only one job's id begins so.
    pub id: Option<String>,
    /// Serial number of a server: its last job.
    #[arg(long, value_name = "SERIAL")]
    pub server: Option<String>,
}

#[derive(Debug, clap::Args)]
pub struct ListJobs {
    /// Serial number of a server: only its jobs.
    #[arg(long, value_name = "SERIAL")]
    pub server: Option<String>,
    /// queued, provisioning, succeeded, failed or complete.
    #[arg(long, value_parser = ["queued", "provisioning", "succeeded", "failed", "complete"])]
    pub status: Option<String>,
    /// Only the last one.
    #[arg(long, conflicts_with = "limit")]
    pub last: bool,
    /// So many at most.
    #[arg(long, default_value_t = LIST)]
    pub limit: usize,
}

impl ListJobs {
    pub fn count(&self) -> usize {
        if self.last { 1 } else { self.limit }
    }
}
