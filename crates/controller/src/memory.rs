// SPDX-License-Identifier: AGPL-3.0-or-later
//! Protection of this process's memory, which holds keys and passwords: no core dumps, and no access by other
//! processes of the same user.

use anyhow::Context;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Forbids core dumps (setrlimit(2)), also by a handler in `core_pattern`, and debuggers (PR_SET_DUMPABLE of
/// prctl(2)). Programs that this process starts inherit the limit.
pub fn keep_to_this_process() -> anyhow::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .context("forbid core dumps")?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("forbid debuggers")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_leaves_no_core_and_shows_its_memory_to_nobody() {
        keep_to_this_process().unwrap();
        let limit = rustix::process::getrlimit(Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
        assert_eq!(rustix::process::dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    }
}
