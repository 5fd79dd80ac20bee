-- SPDX-License-Identifier: AGPL-3.0-or-later
-- In which slot of a BMC each medium may be, so that a slot which does not tell its image can be known as ours.
-- NULL: in none, or it is not known. The media of probes, which belong to no job. Whether a job may eject media that
-- are not this controller's.

ALTER TABLE media ADD COLUMN slot TEXT;
ALTER TABLE jobs ADD COLUMN eject_foreign INTEGER NOT NULL DEFAULT 0;
CREATE INDEX jobs_by_server ON jobs (server_serial);

CREATE TABLE probe_media (
    token_hash    BLOB PRIMARY KEY NOT NULL,
    server_serial TEXT NOT NULL,
    slot          TEXT,
    created_at    INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX probe_media_by_server ON probe_media (server_serial);
