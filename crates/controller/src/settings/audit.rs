// SPDX-License-Identifier: AGPL-3.0-or-later
//! How much of the audit log is kept.

use crate::store::Retention;

/// How much of the audit log is kept.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct AuditArgs {
    /// Entries of the audit log that are older go, but for the newest 10,000 [default: 400].
    #[arg(long, env = "SHOAL_AUDIT_KEEP_DAYS", value_name = "DAYS",
          value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub audit_keep_days: Option<u32>,
    /// The oldest go where the log has more than this; each entry counts as 1 KiB, the most that one can
    /// have [default: 512].
    #[arg(long, env = "SHOAL_AUDIT_MAX_MIB", value_name = "MIB",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub audit_max_mib: Option<u32>,
}

/// A year and a month: everything since the last yearly review.
const AUDIT_KEEP_DAYS: u32 = 400;
/// Half a million entries: years of a site with a hundred requests an hour.
const AUDIT_MAX_MIB: u32 = 512;
/// Entries of 1 KiB in one MiB.
const ENTRIES_PER_MIB: u64 = 1024;

impl AuditArgs {
    /// Returns which entries have to stay, at this time.
    pub fn retention(&self, now_ms: i64) -> Retention {
        let days = i64::from(self.audit_keep_days.unwrap_or(AUDIT_KEEP_DAYS));
        let mib = self.audit_max_mib.unwrap_or(AUDIT_MAX_MIB);
        Retention {
            since: now_ms.saturating_sub(days * 24 * 3600 * 1000),
            entries_max: u64::from(mib) * ENTRIES_PER_MIB,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Args, Command};
    use super::*;

    #[test]
    fn what_the_audit_log_keeps_is_told_in_days_and_mebibytes() {
        const DAY_MS: i64 = 24 * 3600 * 1000;
        let parse = |more: &[&str]| {
            let line = ["shoal-controller", "serve", "--data-dir", "d"];
            Args::try_parse_from(line.iter().chain(more)).map(|args| {
                let Command::Serve(args) = args.command else { panic!("it says serve") };
                let Retention { since, entries_max } = args.audit.retention(1000 * DAY_MS);
                (since / DAY_MS, entries_max)
            })
        };
        assert_eq!(parse(&[]).unwrap(), (600, 512 * 1024));
        let given = ["--audit-keep-days", "30", "--audit-max-mib", "2"];
        assert_eq!(parse(&given).unwrap(), (970, 2048));
        for bad in ["--audit-keep-days=0", "--audit-max-mib=0", "--audit-max-mib=x"] {
            assert!(parse(&[bad]).is_err(), "{bad}");
        }
    }
}
