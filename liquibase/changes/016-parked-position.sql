--liquibase formatted sql

--changeset walletsvc:016-parked-position
--comment: Where a wallet waits, one row says from which entry of the log on; the events themselves stay in the log.
SET LOCAL lock_timeout = '2s';
ALTER TABLE parked_event
    ALTER COLUMN event DROP NOT NULL,
    -- The entry that has the event: it and all later entries of the wallet wait. NULL: this event alone waits or is dead.
    ADD COLUMN entry_at timestamptz,
    ADD COLUMN entry_id uuid,
    ADD CONSTRAINT parked_event_position_is_whole CHECK ((entry_at IS NULL) = (entry_id IS NULL)) NOT VALID,
    ADD CONSTRAINT parked_event_dead_is_alone CHECK (status <> 'DEAD' OR entry_at IS NULL) NOT VALID;
--rollback ALTER TABLE parked_event DROP COLUMN entry_at, DROP COLUMN entry_id, ALTER COLUMN event SET NOT NULL;

--changeset walletsvc:016-parked-position-valid
--comment: The rows that were there are checked while others write.
ALTER TABLE parked_event
    VALIDATE CONSTRAINT parked_event_position_is_whole,
    VALIDATE CONSTRAINT parked_event_dead_is_alone;
--rollback empty

--changeset walletsvc:016-parked-wallet-unique runInTransaction:false
--comment: One position for each subscriber and wallet.
DROP INDEX CONCURRENTLY IF EXISTS parked_event_wallet_unique;
CREATE UNIQUE INDEX CONCURRENTLY parked_event_wallet_unique ON parked_event (subscriber_id, wallet_id)
    WHERE entry_at IS NOT NULL;
--rollback DROP INDEX parked_event_wallet_unique;

--changeset walletsvc:016-parked-due runInTransaction:false
--comment: The rows whose next attempt is due, without reading those that wait longer.
DROP INDEX CONCURRENTLY IF EXISTS parked_event_due_idx;
CREATE INDEX CONCURRENTLY parked_event_due_idx ON parked_event (subscriber_id, next_attempt_at) WHERE status = 'WAITING';
--rollback DROP INDEX parked_event_due_idx;
