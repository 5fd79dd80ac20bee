// SPDX-License-Identifier: AGPL-3.0-or-later
//! Keys and passwords are in this process's memory: it leaves no image of that behind, and no other process of the
//! same user reads it.

use anyhow::Context;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// No core dump (setrlimit(2)), also none by a handler in `core_pattern`, and no debugger (PR_SET_DUMPABLE of
/// prctl(2)). Programs that this one starts have the limit too.
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
