// SPDX-License-Identifier: AGPL-3.0-or-later
//! Reads the members of a collection one by one. A member that cannot be read is noted and does not prevent reading
//! the others: a tray, a slot or a manager may be unavailable while the machine is there. How long such a member is
//! waited for depends on whether the others are enough, which the caller decides.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

use crate::answer::Answer;
use crate::patience::{Patience, Repeat};
use crate::{Bmc, Budgets, Error, links};

/// Most members of a collection that are read.
pub(crate) const MEMBERS_MAX: usize = 64;
/// How long to wait for a member if the others are enough. A BMC that is only busy answers the next request.
pub(crate) const SIBLING_PATIENCE: Duration = Duration::from_secs(10);

/// A member that was read.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub path: String,
    pub allow: Option<String>,
    pub body: Arc<Value>,
}

/// A member that could not be read.
#[derive(Debug)]
pub(crate) struct Unread {
    pub path: String,
    pub error: Error,
}

/// All members of a collection, in its order.
#[derive(Debug, Default)]
pub(crate) struct Members {
    pub read: Vec<Member>,
    pub unread: Vec<Unread>,
}

impl Member {
    fn of(path: &str, answer: Answer) -> Member {
        Member { path: path.to_owned(), allow: answer.allow, body: answer.body }
    }
}

impl Unread {
    /// The BMC reports that the member does not exist, although its collection lists it.
    pub fn is_absent(&self) -> bool {
        matches!(self.error, Error::Status { status: 404 | 410, .. })
    }
}

/// Whether an error concerns this member only. A refused login or a changed certificate concerns the BMC.
fn is_of_member(error: &Error) -> bool {
    matches!(error, Error::Status { .. } | Error::BadAnswer { .. } | Error::Unreachable { .. })
}

/// Whether the member may be readable in a moment.
fn may_pass(error: &Error) -> bool {
    match error {
        Error::Status { cause: Some(cause), .. } if cause.is_transient().is_some() => {
            cause.is_of_service()
        }
        Error::Status { status, .. } => matches!(status, 429 | 502 | 503 | 504),
        Error::Unreachable { .. } => true,
        _ => false,
    }
}

impl Bmc {
    /// Reads every member of a collection once, even if it is linked several times. While the members that were read
    /// are not enough, the others get the time of any request; after that, only `siblings`.
    pub(crate) async fn members(
        &self,
        collection: &Value,
        siblings: Duration,
        is_enough: impl Fn(&[Member]) -> bool,
    ) -> Result<Members, Error> {
        let Some(path) = links::of(collection) else { return Ok(Members::default()) };
        let body = self.get(&path).await?.body;
        self.members_of(&body, siblings, is_enough).await
    }

    /// The same for a collection that was already read. `siblings`: how long to wait for a busy member if the others
    /// are enough.
    pub(crate) async fn members_of(
        &self,
        collection: &Value,
        siblings: Duration,
        is_enough: impl Fn(&[Member]) -> bool,
    ) -> Result<Members, Error> {
        let linked = collection["Members"].as_array().cloned().unwrap_or_default();
        let mut seen = BTreeSet::new();
        // A link that is repeated a thousand times is one member.
        let is_new = |path: &String| seen.insert(links::key(path).to_owned());
        let linked = linked.iter().filter_map(links::of).filter(is_new);
        let paths: Vec<String> = linked.take(MEMBERS_MAX).collect();
        let mut answers = Vec::new();
        for path in &paths {
            answers.push(self.read_member(path).await?);
        }
        let found = |answers: &[Result<Answer, Error>]| -> Vec<Member> {
            let both = paths.iter().zip(answers);
            both.filter_map(|(path, answer)| Some(Member::of(path, answer.as_ref().ok()?.clone())))
                .collect()
        };
        let mut is_content = is_enough(&found(&answers));
        let mut patience = self.patience(if is_content { siblings } else { self.budgets.retries });
        while let Some(busy) =
            answers.iter().position(|answer| answer.as_ref().is_err_and(may_pass))
        {
            let placeholder = Error::Unsupported("a member of a collection");
            let Err(error) = std::mem::replace(&mut answers[busy], Err(placeholder)) else { break };
            if let Err(error) = patience.spend_on(error).await {
                answers[busy] = Err(error);
                break;
            }
            answers[busy] = self.read_member(&paths[busy]).await?;
            for (path, answer) in paths.iter().zip(&mut answers).skip(busy + 1) {
                if answer.as_ref().is_err_and(may_pass) {
                    *answer = self.read_member(path).await?;
                }
            }
            if !is_content && is_enough(&found(&answers)) {
                is_content = true;
                patience = self.patience(siblings);
            }
        }
        let mut members = Members::default();
        for (path, answer) in paths.into_iter().zip(answers) {
            match answer {
                Ok(answer) => members.read.push(Member::of(&path, answer)),
                Err(error) => members.unread.push(Unread { path, error }),
            }
        }
        Ok(members)
    }

    fn patience(&self, most: Duration) -> Patience {
        let retries = most.min(self.budgets.retries);
        Patience::new(Repeat::Freely, &Budgets { retries, ..self.budgets.clone() })
    }

    /// One attempt. The outer error concerns the BMC, the inner one the member.
    async fn read_member(&self, path: &str) -> Result<Result<Answer, Error>, Error> {
        let answer = match self.once(Method::GET, path, None, None).await {
            // The BMC dropped the session: this logs in again.
            Err(Error::Unauthorized { .. }) => self.get(path).await,
            answer => answer,
        };
        match answer {
            Err(error) if !is_of_member(&error) => Err(error),
            answer => Ok(answer),
        }
    }

    /// Reads a resource that may be missing or unavailable; the inner error is that resource's. A busy one is waited
    /// for briefly.
    pub(crate) async fn read_optional(&self, path: &str) -> Result<Result<Answer, Error>, Error> {
        let mut patience = self.patience(SIBLING_PATIENCE);
        loop {
            match self.read_member(path).await? {
                Err(error) => match patience.spend_on(error).await {
                    Ok(()) => {}
                    Err(error) => return Ok(Err(error)),
                },
                answer => return Ok(answer),
            }
        }
    }
}
