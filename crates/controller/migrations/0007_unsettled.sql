-- SPDX-License-Identifier: AGPL-3.0-or-later
-- Until when a BMC may still carry out what it was asked for by a worker that did not see the effect, in
-- milliseconds since 1970. The clean-up of the job waits for that.

ALTER TABLE jobs ADD COLUMN unsettled_until INTEGER NOT NULL DEFAULT 0;
