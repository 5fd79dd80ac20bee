// SPDX-License-Identifier: AGPL-3.0-or-later
//! Failures of a command, and the exit codes that scripts rely on.

use std::fmt;

use api::problem::Problem;

use crate::output::printable;

/// A local file, a program or a response was invalid, or the controller refused the request.
pub const FAILED: u8 = 1;
/// The reader of our output has ended: the status that shells report for a program that SIGPIPE ended (128 + 13).
pub const BROKEN_PIPE: u8 = 141;

#[derive(Debug)]
pub enum Failure {
    /// The controller's problem document.
    Refused(Box<Problem>),
    /// There was no response.
    Unreachable(String),
    /// The job is complete and failed.
    JobFailed(Box<FailedJob>),
    /// A job would fail.
    NotReady,
    /// A probe found something that would make a job fail.
    ProbeFailed,
    /// The number of problems in the recipes.
    Invalid(usize),
    /// The firmware update did not succeed.
    UpdateFailed(String),
    /// A local failure: a file, a program.
    Local(anyhow::Error),
}

/// What the user needs to know about a failed job in order to continue.
#[derive(Debug, Default)]
pub struct FailedJob {
    pub id: String,
    pub step: String,
    pub reason: String,
    /// The controller's message about what it did to the machine after the failure.
    pub done: Vec<String>,
    /// Which parts of that failed.
    pub not_done: Vec<String>,
    pub needs_attention: String,
}

impl Failure {
    pub fn code(&self) -> u8 {
        match self {
            Failure::Refused(_) | Failure::Local(_) => FAILED,
            Failure::Unreachable(_) => 3,
            Failure::JobFailed(_)
            | Failure::NotReady
            | Failure::ProbeFailed
            | Failure::Invalid(_)
            | Failure::UpdateFailed(_) => 4,
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::Local(error)
    }
}

/// Each part is a foreign text and is made printable; the text between them is ours.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Failure::Refused(problem) => {
                write!(f, "{} ({})", printable(&problem.title), problem.status)?;
                // There is one error, and the detail has the same text: it is printed once.
                let is_told = problem.errors.iter().any(|error| error.message == problem.detail);
                if !problem.detail.is_empty() && !is_told {
                    write!(f, ": {}", printable(&problem.detail))?;
                }
                for error in &problem.errors {
                    let [path, message, code] =
                        [&error.path, &error.message, &error.code].map(|text| printable(text));
                    let colon = if path.is_empty() { "" } else { ": " };
                    write!(f, "\n  {path}{colon}{message} [{code}]")?;
                }
                Ok(())
            }
            Failure::Unreachable(why) => {
                write!(f, "the controller cannot be reached: {}", printable(why))
            }
            Failure::JobFailed(job) => job.fmt(f),
            Failure::UpdateFailed(why) => write!(f, "the firmware update {}", printable(why)),
            Failure::NotReady => write!(f, "a job would fail; see the checks"),
            Failure::ProbeFailed => write!(f, "a job would fail; see the problems"),
            Failure::Invalid(1) => write!(f, "1 problem; nothing was sent"),
            Failure::Invalid(count) => write!(f, "{count} problems; nothing was sent"),
            Failure::Local(error) => f.write_str(&printable(&format!("{error:#}"))),
        }
    }
}

/// The cause has lines of its own, so that a terminal wraps it instead of truncating it.
impl fmt::Display for FailedJob {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "the job failed in {}:", printable(&self.step))?;
        for line in self.reason.lines() {
            write!(f, "\n  {}", printable(line))?;
        }
        let sentence = |parts: &[String]| printable(&parts.join("; ")).into_owned();
        if self.done.is_empty() && self.not_done.is_empty() {
            write!(f, "\nthe machine: nothing was changed on it")?;
        }
        if !self.done.is_empty() {
            write!(f, "\nthe machine, after that: {}", sentence(&self.done))?;
        }
        if !self.not_done.is_empty() {
            write!(f, "\nnot done: {}", sentence(&self.not_done))?;
        }
        if !self.needs_attention.is_empty() {
            write!(f, "\nneeds attention: {}", printable(&self.needs_attention))?;
        }
        let id = printable(&self.id);
        write!(
            f,
            "\nto look at it:\n  shoal job show {id}\n  shoal job watch {id}     all events again\n  \
             shoal job evidence {id}  all that is known, in one archive"
        )
    }
}

#[cfg(test)]
mod tests {
    use api::problem::FieldProblem;

    use super::*;

    #[test]
    fn an_error_is_told_once_and_without_an_empty_path() {
        let error = |path: &str, message: &str| FieldProblem {
            path: path.into(),
            code: "serial".into(),
            message: message.into(),
        };
        for (detail, errors, expected) in [
            ("bad serial", vec![error("", "bad serial")], "not valid (400)\n  bad serial [serial]"),
            ("look", vec![error("/a", "bad a")], "not valid (400): look\n  /a: bad a [serial]"),
            ("bad", vec![], "not valid (400): bad"),
        ] {
            let problem = Problem {
                kind: "k".into(),
                title: "not valid".into(),
                status: 400,
                detail: detail.into(),
                errors,
            };
            assert_eq!(Failure::Refused(Box::new(problem)).to_string(), expected);
        }
    }

    #[test]
    fn no_failure_brings_a_terminals_command() {
        const EVIL: &str = "a\x1b[2J\u{202e}\rb";
        let problem = Problem {
            kind: EVIL.into(),
            title: EVIL.into(),
            status: 400,
            detail: EVIL.into(),
            errors: vec![FieldProblem {
                path: EVIL.into(),
                code: EVIL.into(),
                message: EVIL.into(),
            }],
        };
        for failure in [
            Failure::Refused(Box::new(problem)),
            Failure::Unreachable(EVIL.into()),
            Failure::JobFailed(Box::new(FailedJob { reason: EVIL.into(), ..FailedJob::default() })),
            Failure::UpdateFailed(EVIL.into()),
            Failure::Local(anyhow::anyhow!(EVIL)),
        ] {
            let shown = failure.to_string();
            assert!(shown.contains("a\u{fffd}[2J\u{fffd} b"), "{shown:?}");
            assert!(!shown.contains(['\x1b', '\u{202e}', '\r']), "{shown:?}");
        }
    }
}
