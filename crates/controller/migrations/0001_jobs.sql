-- SPDX-License-Identifier: AGPL-3.0-or-later
-- Times are milliseconds since 1970 (UTC). `state`, `event`, `permit` and `progress` are JSON.

CREATE TABLE servers (
    serial       TEXT PRIMARY KEY NOT NULL,
    bmc_url      TEXT NOT NULL,
    bmc_username TEXT NOT NULL,
    bmc_password BLOB NOT NULL,          -- sealed; see keys.rs
    bmc_pin      TEXT,                   -- SHA-256 of the certificate, hex
    bmc_ca_pem   TEXT,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL
);

CREATE TABLE jobs (
    id               TEXT PRIMARY KEY NOT NULL,
    server_serial    TEXT NOT NULL,
    attempt          TEXT NOT NULL UNIQUE,
    recipe           TEXT NOT NULL,
    task_target      TEXT NOT NULL,
    artifact_digest  TEXT,               -- what oci_url meant when the job was created
    state            TEXT NOT NULL,
    status           TEXT NOT NULL,
    epoch            INTEGER NOT NULL,   -- +1 per claim; a write of an older epoch changes nothing
    tries            INTEGER NOT NULL,
    due_at           INTEGER,            -- when the driver is to act; NULL: claimed, or nothing to do
    deadline_at      INTEGER,            -- when the present state is overdue
    token_hash       BLOB NOT NULL,      -- SHA-256 of the attempt token
    hello_at         INTEGER,
    boot_id          TEXT,
    permit           TEXT,
    progress         TEXT,
    progress_seq     INTEGER NOT NULL DEFAULT 0,
    log_seq          INTEGER NOT NULL DEFAULT 0,
    idempotency_key  TEXT UNIQUE,
    idempotency_hash BLOB,
    created_at       INTEGER NOT NULL,
    updated_at       INTEGER NOT NULL
);
CREATE UNIQUE INDEX jobs_one_open_per_server ON jobs (server_serial) WHERE status <> 'complete';
CREATE INDEX jobs_due ON jobs (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX jobs_deadline ON jobs (deadline_at) WHERE deadline_at IS NOT NULL;
CREATE INDEX jobs_by_age ON jobs (created_at, id);

CREATE TABLE job_events (
    job_id  TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    seq     INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    kind    TEXT NOT NULL,
    message TEXT NOT NULL,
    status  TEXT NOT NULL,
    step    TEXT,
    event   TEXT,                        -- job::Event, where it moved the job
    PRIMARY KEY (job_id, seq)
) WITHOUT ROWID;

CREATE TABLE media (
    token_hash    BLOB PRIMARY KEY NOT NULL,
    job_id        TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    kind          TEXT NOT NULL,         -- maintenance | task
    created_at    INTEGER NOT NULL,
    revoked_at    INTEGER
) WITHOUT ROWID;
CREATE INDEX media_by_job ON media (job_id);

CREATE TABLE deliveries (
    job_id      TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    delivery_id TEXT NOT NULL,
    PRIMARY KEY (job_id, delivery_id)
) WITHOUT ROWID;
