-- SPDX-License-Identifier: AGPL-3.0-or-later
-- Requests of people that may change something, from before they begin until they are in the audit log. What is
-- left here at a start was interrupted by the end of the process.

CREATE TABLE begun_deeds (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    who TEXT NOT NULL,
    role TEXT NOT NULL,
    method TEXT NOT NULL,
    route TEXT NOT NULL,
    target TEXT NOT NULL,
    origin TEXT
) STRICT;
