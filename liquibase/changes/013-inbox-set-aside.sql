--liquibase formatted sql

--changeset walletsvc:013-inbox-set-aside
--comment: An entry that cannot be carried out is tried a few times and then set aside: it holds up no other entry, and an operator decides on it. A worker of an older version still tries it.
SET LOCAL lock_timeout = '2s';
ALTER TABLE inbox
    ADD COLUMN attempts        integer NOT NULL DEFAULT 0,
    ADD COLUMN last_error      varchar(500) NOT NULL DEFAULT '',
    ADD COLUMN next_attempt_at timestamptz,
    ADD COLUMN set_aside_at    timestamptz,
    ADD CONSTRAINT inbox_attempts_not_negative CHECK (attempts >= 0) NOT VALID;
GRANT UPDATE (attempts, last_error, next_attempt_at, set_aside_at) ON inbox TO walletsvc_app;
--rollback ALTER TABLE inbox DROP COLUMN attempts, DROP COLUMN last_error, DROP COLUMN next_attempt_at,
--rollback     DROP COLUMN set_aside_at;

--changeset walletsvc:013-inbox-attempts-valid
--comment: The entries that were there are looked at while others write.
ALTER TABLE inbox VALIDATE CONSTRAINT inbox_attempts_not_negative;
--rollback empty

--changeset walletsvc:013-inbox-failures
--comment: How many attempts have failed, for the metrics. A sequence counts them without a row that workers would wait for.
CREATE SEQUENCE inbox_failures AS bigint;
GRANT USAGE, SELECT ON SEQUENCE inbox_failures TO walletsvc_app;
--rollback DROP SEQUENCE inbox_failures;

--changeset walletsvc:013-inbox-waiting runInTransaction:false
--comment: The waiting entries in their order, however many are set aside.
DROP INDEX CONCURRENTLY IF EXISTS inbox_waiting_idx;
CREATE INDEX CONCURRENTLY inbox_waiting_idx ON inbox (position) WHERE set_aside_at IS NULL;
--rollback DROP INDEX inbox_waiting_idx;

--changeset walletsvc:013-inbox-waiting-wallet runInTransaction:false
--comment: The wallets that have waiting entries, one probe each, and the first entries of each.
DROP INDEX CONCURRENTLY IF EXISTS inbox_waiting_wallet_idx;
CREATE INDEX CONCURRENTLY inbox_waiting_wallet_idx ON inbox (wallet_id, position) WHERE set_aside_at IS NULL;
--rollback DROP INDEX inbox_waiting_wallet_idx;

--changeset walletsvc:013-inbox-set-aside-position runInTransaction:false
--comment: The entries that are set aside, for operators and metrics.
DROP INDEX CONCURRENTLY IF EXISTS inbox_set_aside_idx;
CREATE INDEX CONCURRENTLY inbox_set_aside_idx ON inbox (position) WHERE set_aside_at IS NOT NULL;
--rollback DROP INDEX inbox_set_aside_idx;
