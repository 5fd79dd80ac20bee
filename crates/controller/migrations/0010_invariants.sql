-- SPDX-License-Identifier: AGPL-3.0-or-later
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

CREATE TRIGGER story_stays BEFORE UPDATE ON job_events
BEGIN SELECT RAISE(ABORT, 'invariant: what was told of a job is not changed'); END;

CREATE TRIGGER dead_media_stay_dead BEFORE UPDATE OF revoked_at ON media
WHEN OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS NOT OLD.revoked_at
BEGIN SELECT RAISE(ABORT, 'invariant: a medium that is over does not come back'); END;
