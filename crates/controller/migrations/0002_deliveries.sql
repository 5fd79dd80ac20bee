-- SPDX-License-Identifier: AGPL-3.0-or-later
-- A webhook delivery is known by its server: a repeated one may come after its job is complete.

CREATE TABLE deliveries_by_server (
    server_serial TEXT NOT NULL,
    delivery_id   TEXT NOT NULL,
    job_id        TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    PRIMARY KEY (server_serial, delivery_id)
) WITHOUT ROWID;
INSERT OR IGNORE INTO deliveries_by_server
    SELECT jobs.server_serial, delivery_id, job_id FROM deliveries JOIN jobs ON jobs.id = job_id;
DROP TABLE deliveries;
ALTER TABLE deliveries_by_server RENAME TO deliveries;
CREATE INDEX deliveries_by_job ON deliveries (job_id);
