-- SPDX-License-Identifier: AGPL-3.0-or-later
-- What a job found at its machine before it changed anything (as_found::Found): power, boot override, remote
-- media. It is put back at the job's end. NULL: not read yet, or the job is older than this column.

ALTER TABLE jobs ADD COLUMN found TEXT;

-- A later reading would show what the job itself has set.
CREATE TRIGGER found_is_recorded_once BEFORE UPDATE OF found ON jobs
WHEN OLD.found IS NOT NULL AND NEW.found IS NOT OLD.found
BEGIN SELECT RAISE(ABORT, 'invariant: what a job found is recorded once'); END;

CREATE TRIGGER found_is_recorded_first BEFORE UPDATE OF found ON jobs
WHEN OLD.found IS NULL AND NEW.found IS NOT NULL AND OLD.media_plan IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'invariant: what a job found is recorded before it changes anything'); END;
