// SPDX-License-Identifier: AGPL-3.0-or-later
//! A problem in a recipe: its place, and what would be valid there. `validate` and `meaning` report them.

/// Most problems that are reported at once.
pub(crate) const PROBLEMS_MAX: usize = 100;

/// One problem in a recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// JSON pointer (RFC 6901).
    pub path: String,
    /// A short, stable identifier.
    pub code: &'static str,
    pub message: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let place = if self.path.is_empty() { "recipe" } else { self.path.trim_start_matches('/') };
        write!(f, "{place}: {}", self.message)
    }
}

pub(crate) fn problem(
    path: impl Into<String>,
    code: &'static str,
    message: impl Into<String>,
) -> Problem {
    Problem { path: path.into(), code, message: message.into() }
}
