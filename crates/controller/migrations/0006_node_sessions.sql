-- SPDX-License-Identifier: AGPL-3.0-or-later
-- Who may speak for a job's machine: one session for each boot that said hello. The one of jobs.boot_id
-- is in force, the others are over.

CREATE TABLE node_sessions (
    job_id     TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    boot_id    TEXT NOT NULL,
    token_hash BLOB NOT NULL,
    started_at INTEGER NOT NULL,
    PRIMARY KEY (job_id, boot_id)
) WITHOUT ROWID;
