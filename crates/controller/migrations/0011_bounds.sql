-- SPDX-License-Identifier: AGPL-3.0-or-later
-- What a job's machine made us keep of its events, and how much of that was dropped again; refused requests
-- that share an audit entry; and where the audit log begins.

ALTER TABLE jobs ADD COLUMN said_rows INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN said_bytes INTEGER NOT NULL DEFAULT 0;   -- as JSON
ALTER TABLE jobs ADD COLUMN said_dropped INTEGER NOT NULL DEFAULT 0; -- rows
UPDATE jobs SET
    said_rows = (SELECT count(*) FROM job_events WHERE job_id = id
                 AND kind IN ('log', 'step', 'hello', 'permit_refused', 'session_replaced')),
    said_bytes = (SELECT coalesce(sum(200 + length(CAST(message AS BLOB))), 0) FROM job_events
                  WHERE job_id = id
                  AND kind IN ('log', 'step', 'hello', 'permit_refused', 'session_replaced'));

-- How many more requests like this one were refused; NULL: the entry is of one request.
ALTER TABLE audit ADD COLUMN repeats INTEGER;

-- The last entry that was removed for its age or for room; the log has an entry of that, too.
CREATE TABLE audit_removed (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    seq  INTEGER NOT NULL,
    hash TEXT    NOT NULL
) STRICT;
