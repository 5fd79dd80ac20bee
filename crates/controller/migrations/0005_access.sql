-- SPDX-License-Identifier: AGPL-3.0-or-later
-- Tokens of people and programs, and who changed what.

CREATE TABLE tokens (
    id           TEXT    PRIMARY KEY,       -- the part of the token's text that is no secret
    role         TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    hash         BLOB    NOT NULL,          -- SHA-256 of the token's text: 256 random bits need no salt
    pull         TEXT    NOT NULL,          -- JSON: prefixes of a publisher
    push         TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    last_used_at INTEGER,                   -- to the minute; NULL: never
    revoked_at   INTEGER                    -- NULL: not revoked
);

-- One row for each request that may change something. Rows are never changed; each one's hash covers the
-- hash of the one before.
CREATE TABLE audit (
    seq    INTEGER PRIMARY KEY,
    at     INTEGER NOT NULL,
    who    TEXT    NOT NULL,
    role   TEXT    NOT NULL,
    method TEXT    NOT NULL,
    route  TEXT    NOT NULL,
    target TEXT    NOT NULL,
    origin TEXT,                            -- address of the client
    status INTEGER NOT NULL,
    hash   TEXT    NOT NULL
);
