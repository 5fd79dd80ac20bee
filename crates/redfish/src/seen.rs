// SPDX-License-Identifier: AGPL-3.0-or-later
//! A cache of resources that were read a moment ago. BMCs serve one or two requests a second, and the resource that
//! an action starts from was often read just before.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::answer::Answer;

/// How long a resource is cached. Another client could change it in that time, but also between a request and its
/// effect.
const MOMENT: Duration = Duration::from_secs(1);
/// Most cached resources: the system and its slots.
const SEEN_MAX: usize = 4;

/// Resources that were read since the last change, the newest at the end.
#[derive(Default)]
pub(crate) struct Seen(Mutex<VecDeque<One>>);

struct One {
    path: String,
    at: Instant,
    answer: Answer,
}

impl Seen {
    pub fn keep(&self, path: &str, answer: &Answer, now: Instant) {
        let mut seen = self.lock();
        seen.retain(|one| one.path != path);
        if seen.len() == SEEN_MAX {
            seen.pop_front();
        }
        seen.push_back(One { path: path.to_owned(), at: now, answer: answer.clone() });
    }

    pub fn forget(&self) {
        self.lock().clear();
    }

    /// The resource, if it was read within the last moment.
    pub fn find(&self, path: &str, now: Instant) -> Option<Answer> {
        let seen = self.lock();
        let found = seen.iter().find(|one| one.path == path && now.duration_since(one.at) < MOMENT);
        found.map(|one| one.answer.clone())
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<One>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_resources_are_remembered_for_a_moment() {
        let (seen, begun) = (Seen::default(), Instant::now());
        let status = reqwest::StatusCode::OK;
        let body = serde_json::Value::Null.into();
        let answer = Answer { status, location: None, etag: None, allow: None, body };
        for path in ["/a", "/b", "/c", "/d", "/a", "/e"] {
            seen.keep(path, &answer, begun);
        }
        let found = |path, now| seen.find(path, now).is_some();
        let all = ["/a", "/b", "/c", "/d", "/e"].map(|path| found(path, begun));
        assert_eq!(all, [true, false, true, true, true]);
        assert!(!found("/a", begun + MOMENT));
        seen.keep("/a", &answer, begun + MOMENT);
        assert!(found("/a", begun + MOMENT));
        seen.forget();
        assert!(!found("/a", begun + MOMENT));
    }
}
