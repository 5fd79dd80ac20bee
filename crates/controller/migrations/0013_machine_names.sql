-- SPDX-License-Identifier: AGPL-3.0-or-later
-- The names by which a job's machine is known, as its BMC told them when the media were inserted
-- (recipe::machine::Names); they take the place of its UUID alone. Who opened a session, for people. What a
-- person has to look at even where the job succeeded.

ALTER TABLE jobs ADD COLUMN machine_names TEXT NOT NULL DEFAULT '[]';
UPDATE jobs SET machine_names = json_array(
    json_object('kind', 'serial', 'text', server_serial), json_object('kind', 'uuid', 'text', machine_uuid)
) WHERE machine_uuid <> '';
ALTER TABLE jobs DROP COLUMN machine_uuid;
ALTER TABLE jobs ADD COLUMN attention TEXT;
ALTER TABLE node_sessions ADD COLUMN who TEXT NOT NULL DEFAULT '';
