-- SPDX-License-Identifier: AGPL-3.0-or-later
-- What a person says of a BMC, and what the BMC said of its credentials.

ALTER TABLE servers ADD COLUMN bmc_profile TEXT;          -- NULL: as the BMC tells
ALTER TABLE servers ADD COLUMN login_refused_at INTEGER;  -- NULL: not refused since they were set
