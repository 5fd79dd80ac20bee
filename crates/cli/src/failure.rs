// SPDX-License-Identifier: AGPL-3.0-or-later
//! How a command ends when it does not succeed: the exit codes that scripts rely on.

use std::fmt;

use api::problem::Problem;

#[derive(Debug)]
pub enum Failure {
    /// The controller's own words.
    Refused(Box<Problem>),
    /// Nothing answered.
    Unreachable(String),
    /// The job is complete and failed.
    JobFailed(String),
    /// A job would fail.
    NotReady,
    /// The firmware update did not come to a good end.
    UpdateFailed(String),
    /// Something here: a file, a program.
    Local(anyhow::Error),
}

impl Failure {
    pub fn code(&self) -> u8 {
        match self {
            Failure::Refused(_) | Failure::Local(_) => 1,
            Failure::Unreachable(_) => 3,
            Failure::JobFailed(_) | Failure::NotReady | Failure::UpdateFailed(_) => 4,
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::Local(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Failure::Refused(problem) => {
                write!(f, "{} ({})", problem.title, problem.status)?;
                if !problem.detail.is_empty() {
                    write!(f, ": {}", problem.detail)?;
                }
                for error in &problem.errors {
                    write!(f, "\n  {}: {} [{}]", error.path, error.message, error.code)?;
                }
                Ok(())
            }
            Failure::Unreachable(why) => write!(f, "the controller cannot be reached: {why}"),
            Failure::JobFailed(why) => write!(f, "the job failed: {why}"),
            Failure::UpdateFailed(why) => write!(f, "the firmware update {why}"),
            Failure::NotReady => write!(f, "a job would fail; see the checks"),
            Failure::Local(error) => write!(f, "{error:#}"),
        }
    }
}
