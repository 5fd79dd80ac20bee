// SPDX-License-Identifier: AGPL-3.0-or-later
//! The common steps of every write: trying the forms that BMCs accept, conditional requests, retries on temporary
//! conflicts, following tasks, and reading back. A 2xx response proves nothing: an action ends when its effect can be
//! read, or with `NotEffective`.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;
use tokio::time::Instant;

use crate::answer::Answer;
use crate::patience::Repeat;
use crate::{Bmc, Error, links, refusal};

impl Bmc {
    /// A PATCH with the ETag just read as condition; Lenovo and AMI refuse one without a condition. If the condition
    /// itself is refused, the other forms that BMCs accept are tried: the strong form of a weak ETag, no condition,
    /// and `*`.
    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Result<Answer, Error> {
        let mut refused = None;
        for form in [Condition::AsRead, Condition::Strong, Condition::Absent, Condition::Any] {
            let tag = match form {
                Condition::AsRead | Condition::Strong => self.get(path).await?.etag,
                Condition::Absent | Condition::Any => None,
            };
            let tag = match (form, tag) {
                (Condition::AsRead, tag) => tag,
                (Condition::Strong, tag) => match tag.as_deref().and_then(|t| t.strip_prefix("W/"))
                {
                    Some(strong) => Some(strong.to_owned()),
                    None => continue,
                },
                (Condition::Absent, _) => None,
                (Condition::Any, _) => Some("*".to_owned()),
            };
            let patch = || self.call(Method::PATCH, path, Some(body), tag.as_deref());
            match self.while_busy(patch).await {
                // 412: the ETag is not current, or not understood. 428: a condition is required.
                Err(error @ Error::Status { status: 412 | 428, .. }) => refused = Some(error),
                result => return result,
            }
        }
        Err(refused.unwrap_or(Error::Unsupported("a PATCH of this resource")))
    }

    /// Posts the bodies in order, until one is not rejected as malformed.
    pub(crate) async fn post_variants(
        &self,
        path: &str,
        bodies: &[Option<Value>],
        repeat: Repeat,
    ) -> Result<Answer, Error> {
        let mut last = Error::Unsupported("this action");
        for body in bodies {
            match self.repeat(repeat, Method::POST, path, body.as_ref(), None).await {
                Ok(answer) => return Ok(answer),
                Err(error) if error.is_of_bmc() => return Err(error),
                Err(error @ Error::Status { status: 400 | 411 | 415 | 422, .. }) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// Repeats a request while the BMC reports that it is busy. Some return 409 for a minute after a power-off,
    /// others while an eject completes (OpenStack ironic, 238c9e0cc and 941f78835); iLO returns 400 while the machine
    /// is in POST.
    pub(crate) async fn while_busy<F>(&self, request: impl Fn() -> F) -> Result<Answer, Error>
    where
        F: Future<Output = Result<Answer, Error>>,
    {
        let deadline = Instant::now() + self.budgets.effect;
        loop {
            match request().await {
                Err(error)
                    if error.is_busy() && Instant::now() + self.budgets.conflict < deadline =>
                {
                    tokio::time::sleep(self.budgets.conflict).await;
                }
                result => return result,
            }
        }
    }

    /// Waits for the task of a 202 response. A task that disappears counts as neither success nor failure: the effect
    /// decides.
    pub(crate) async fn follow(&self, answer: Answer) -> Result<(), Error> {
        self.follow_for(answer, self.budgets.insert).await
    }

    /// The same with another time limit. A BMC that does not respond meanwhile may be restarting.
    pub(crate) async fn follow_for(&self, answer: Answer, budget: Duration) -> Result<(), Error> {
        if answer.status != reqwest::StatusCode::ACCEPTED {
            return Ok(());
        }
        let told = answer.body["@odata.id"].as_str();
        let told = told.and_then(|link| links::path_at_home(&self.transport.base, link));
        let Some(path) = told.or(answer.location) else { return Ok(()) };
        let deadline = Instant::now() + budget;
        while Instant::now() < deadline {
            let (status, task) = match self.get(&path).await {
                Ok(answer) => (answer.status, answer.body),
                Err(Error::Status { status: 404 | 410, .. }) => return Ok(()),
                Err(Error::Unreachable { .. } | Error::Status { status: 500..=599, .. })
                    if Instant::now() + self.budgets.poll < deadline =>
                {
                    tokio::time::sleep(self.budgets.poll).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            match task["TaskState"].as_str() {
                Some("Exception" | "Killed" | "Cancelled" | "Interrupted") => {
                    self.settled();
                    let (why, _cause) =
                        refusal::of_document(&task["Messages"], &self.transport.secrets);
                    let why = if why.is_empty() { "no reason given".into() } else { why };
                    return Err(Error::TaskFailed { task: self.foreign(&path), why });
                }
                Some("New" | "Starting" | "Running" | "Pending" | "Stopping" | "Suspended") => {
                    tokio::time::sleep(self.budgets.poll).await;
                }
                // A task monitor returns 202 until the operation is over (DSP0266, 12.2).
                None if status == reqwest::StatusCode::ACCEPTED => {
                    tokio::time::sleep(self.budgets.poll).await;
                }
                _ => return Ok(()),
            }
        }
        Err(Error::NotEffective { what: format!("task {}", self.foreign(&path)), budget })
    }

    /// Reads `path` until `is_so` holds.
    pub(crate) async fn until(
        &self,
        what: &str,
        budget: Duration,
        path: &str,
        is_so: impl Fn(&Value) -> bool,
    ) -> Result<(), Error> {
        let deadline = Instant::now() + budget;
        while !is_so(&self.get(path).await?.body) {
            if Instant::now() > deadline {
                return Err(Error::NotEffective { what: what.into(), budget });
            }
            tokio::time::sleep(self.budgets.poll).await;
        }
        self.settled();
        Ok(())
    }
}

/// The forms of `If-Match`.
#[derive(Clone, Copy)]
enum Condition {
    AsRead,
    Strong,
    Absent,
    Any,
}
