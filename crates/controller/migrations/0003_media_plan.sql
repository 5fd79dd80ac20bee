-- SPDX-License-Identifier: AGPL-3.0-or-later
-- How the media of a job were inserted last: cd+cd, cd+usb or cd. NULL before the first insert.

ALTER TABLE jobs ADD COLUMN media_plan TEXT;
