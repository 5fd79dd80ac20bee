-- SPDX-License-Identifier: AGPL-3.0-or-later
-- When a controller ran last, by its clock then, in milliseconds since 1970. The next start sees by it how long
-- nobody listened.

CREATE TABLE clock (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    seen_at INTEGER NOT NULL
) STRICT;
