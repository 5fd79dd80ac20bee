-- SPDX-License-Identifier: AGPL-3.0-or-later
-- Times are milliseconds since 1970 (UTC). `state`, `event`, `permit`, `progress` and `found` are JSON.

CREATE TABLE servers (
    serial           TEXT PRIMARY KEY NOT NULL,
    bmc_url          TEXT NOT NULL,
    bmc_username     TEXT NOT NULL,
    bmc_password     BLOB NOT NULL,      -- sealed; see keys/sealing.rs
    bmc_pin          TEXT,               -- SHA-256 of the certificate, hex
    bmc_ca_pem       TEXT,
    created_at       INTEGER NOT NULL,
    updated_at       INTEGER NOT NULL,
    bmc_profile      TEXT,               -- what a person says of the BMC; NULL: as the BMC tells
    login_refused_at INTEGER,            -- NULL: not refused since the credentials were set
    ignores_uuid     INTEGER NOT NULL DEFAULT FALSE -- the BMC tells a wrong SMBIOS UUID
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
    boot_id          TEXT,               -- the boot whose session is in force
    permit           TEXT,
    progress         TEXT,
    progress_seq     INTEGER NOT NULL DEFAULT 0,
    log_seq          INTEGER NOT NULL DEFAULT 0,
    idempotency_key  TEXT UNIQUE,
    idempotency_hash BLOB,
    created_at       INTEGER NOT NULL,
    updated_at       INTEGER NOT NULL,
    -- How the media were inserted last: cd+cd, cd+usb, cd or http. NULL before the first insert.
    media_plan       TEXT,
    -- Until when a BMC may still carry out what a worker asked for that did not see the effect. The
    -- clean-up waits for that.
    unsettled_until  INTEGER NOT NULL DEFAULT 0,
    -- Events that the machine caused: how many, their bytes as JSON, and how many were dropped again.
    said_rows        INTEGER NOT NULL DEFAULT 0,
    said_bytes       INTEGER NOT NULL DEFAULT 0,
    said_dropped     INTEGER NOT NULL DEFAULT 0,
    -- By which the machine is known, as its BMC told when the media were inserted (recipe::machine::Names).
    machine_names    TEXT NOT NULL DEFAULT '[]',
    -- What a person has to look at even where the job succeeded.
    attention        TEXT,
    -- What the job found at its machine before it changed anything (as_found::Found). NULL: not read yet.
    found            TEXT,
    -- The job may eject media that are not this controller's.
    eject_foreign    INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX jobs_one_open_per_server ON jobs (server_serial) WHERE status <> 'complete';
CREATE INDEX jobs_due ON jobs (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX jobs_deadline ON jobs (deadline_at) WHERE deadline_at IS NOT NULL;
CREATE INDEX jobs_by_age ON jobs (created_at, id);
CREATE INDEX jobs_by_server ON jobs (server_serial);

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

-- Which URL gives which medium to which job, and in which slot of its BMC the medium may be (NULL: in none, or it is not
-- known): a slot that does not tell its image can be known as ours.
CREATE TABLE media (
    token_hash    BLOB PRIMARY KEY NOT NULL,
    job_id        TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    kind          TEXT NOT NULL,         -- store::MediumKind
    created_at    INTEGER NOT NULL,
    revoked_at    INTEGER,
    slot          TEXT
) WITHOUT ROWID;
CREATE INDEX media_by_job ON media (job_id);

-- The media of probes, which belong to no job.
CREATE TABLE probe_media (
    token_hash    BLOB PRIMARY KEY NOT NULL,
    server_serial TEXT NOT NULL,
    slot          TEXT,
    created_at    INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX probe_media_by_server ON probe_media (server_serial);

-- A webhook delivery is known by its server: a repeated one may come after its job is complete.
CREATE TABLE deliveries (
    server_serial TEXT NOT NULL,
    delivery_id   TEXT NOT NULL,
    job_id        TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    PRIMARY KEY (server_serial, delivery_id)
) WITHOUT ROWID;
CREATE INDEX deliveries_by_job ON deliveries (job_id);

-- One session for each boot of a job's machine that said hello. The one of jobs.boot_id is in force, the others are over.
CREATE TABLE node_sessions (
    job_id     TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    boot_id    TEXT NOT NULL,
    token_hash BLOB NOT NULL,
    started_at INTEGER NOT NULL,
    who        TEXT NOT NULL DEFAULT '', -- what it says it is, for people
    PRIMARY KEY (job_id, boot_id)
) WITHOUT ROWID;

-- Tokens of people and programs.
CREATE TABLE tokens (
    id           TEXT    PRIMARY KEY,    -- the part of the token's text that is no secret
    role         TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    hash         BLOB    NOT NULL,       -- SHA-256 of the token's text: 256 random bits need no salt
    pull         TEXT    NOT NULL,       -- JSON: prefixes of a publisher
    push         TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    last_used_at INTEGER,                -- to the minute; NULL: never
    revoked_at   INTEGER                 -- NULL: not revoked
);

-- One row for each request that may change something. Rows are never changed; each one's hash covers the
-- hash of the one before.
CREATE TABLE audit (
    seq     INTEGER PRIMARY KEY,
    at      INTEGER NOT NULL,
    who     TEXT    NOT NULL,
    role    TEXT    NOT NULL,
    method  TEXT    NOT NULL,
    route   TEXT    NOT NULL,
    target  TEXT    NOT NULL,
    origin  TEXT,                        -- address of the client
    status  INTEGER NOT NULL,
    hash    TEXT    NOT NULL,
    repeats INTEGER                      -- how many more requests like this were refused; NULL: it is of one
);

-- The last audit entry that was removed for its age or for room; the log has an entry of that, too.
CREATE TABLE audit_removed (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    seq  INTEGER NOT NULL,
    hash TEXT    NOT NULL
) STRICT;

-- Requests that may change something, from before they begin until they are in the audit log. What is left here at
-- a start was interrupted by the end of the process.
CREATE TABLE begun_requests (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    at     INTEGER NOT NULL,
    who    TEXT NOT NULL,
    role   TEXT NOT NULL,
    method TEXT NOT NULL,
    route  TEXT NOT NULL,
    target TEXT NOT NULL,
    origin TEXT
) STRICT;

-- When a controller ran last, by its clock then. The next start sees by it for how long nobody listened.
CREATE TABLE clock (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    seen_at INTEGER NOT NULL
) STRICT;

-- What no bug of this program may write: the statement fails, and with it the change that it belongs to.
CREATE TRIGGER complete_is_complete BEFORE UPDATE OF state, status ON jobs
WHEN OLD.status = 'complete' AND (NEW.status <> OLD.status OR NEW.state <> OLD.state)
BEGIN SELECT RAISE(ABORT, 'invariant: a complete job does not move'); END;

CREATE TRIGGER outcome_stays BEFORE UPDATE OF state ON jobs
WHEN coalesce(OLD.state ->> '$.closing.outcome', OLD.state ->> '$.complete.outcome') IS NOT NULL
 AND coalesce(OLD.state ->> '$.closing.outcome', OLD.state ->> '$.complete.outcome')
     IS NOT coalesce(NEW.state ->> '$.closing.outcome', NEW.state ->> '$.complete.outcome')
BEGIN SELECT RAISE(ABORT, 'invariant: the outcome of a job does not change'); END;

CREATE TRIGGER permit_is_given_once BEFORE UPDATE OF permit ON jobs
WHEN OLD.permit IS NOT NULL AND NEW.permit IS NOT OLD.permit
BEGIN SELECT RAISE(ABORT, 'invariant: an attempt has one permit'); END;

CREATE TRIGGER permit_is_for_a_boot BEFORE UPDATE OF permit ON jobs
WHEN OLD.permit IS NULL AND NEW.permit IS NOT NULL
 AND (NEW.state <> '{"provisioning":"writing"}' OR NEW.boot_id IS NULL)
BEGIN SELECT RAISE(ABORT, 'invariant: a permit is for a boot that writes from now on'); END;

CREATE TRIGGER epoch_grows BEFORE UPDATE OF epoch ON jobs
WHEN NEW.epoch < OLD.epoch
BEGIN SELECT RAISE(ABORT, 'invariant: the epoch of a job does not fall'); END;

CREATE TRIGGER events_stay BEFORE UPDATE ON job_events
BEGIN SELECT RAISE(ABORT, 'invariant: an event of a job is not changed'); END;

CREATE TRIGGER dead_media_stay_dead BEFORE UPDATE OF revoked_at ON media
WHEN OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS NOT OLD.revoked_at
BEGIN SELECT RAISE(ABORT, 'invariant: a medium that is over does not come back'); END;

-- A later reading would show what the job itself has set.
CREATE TRIGGER found_is_recorded_once BEFORE UPDATE OF found ON jobs
WHEN OLD.found IS NOT NULL AND NEW.found IS NOT OLD.found
BEGIN SELECT RAISE(ABORT, 'invariant: what a job found is recorded once'); END;

CREATE TRIGGER found_is_recorded_first BEFORE UPDATE OF found ON jobs
WHEN OLD.found IS NULL AND NEW.found IS NOT NULL AND OLD.media_plan IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'invariant: what a job found is recorded before it changes anything'); END;
