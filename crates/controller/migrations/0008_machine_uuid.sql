-- SPDX-License-Identifier: AGPL-3.0-or-later
-- The SMBIOS UUID of a job's machine as its BMC told it when the media were inserted; empty: it told none.
-- A server may have a BMC that tells a wrong one.

ALTER TABLE jobs ADD COLUMN machine_uuid TEXT NOT NULL DEFAULT '';
ALTER TABLE servers ADD COLUMN ignores_uuid INTEGER NOT NULL DEFAULT FALSE;
