--liquibase formatted sql

-- Nobody waits for any of this: what takes long takes no lock, and what takes a lock is done at once.

--changeset walletsvc:009-wallet-change-type
--comment: What happens to a wallet without an operation is in this log as well: it is opened, a hold of it expires.
SET LOCAL lock_timeout = '2s';
ALTER TABLE wallet_change
    ADD COLUMN type varchar(16) NOT NULL DEFAULT 'CHANGED',
    ADD CONSTRAINT wallet_change_type_is_known CHECK (type IN ('OPENED', 'CHANGED', 'HOLD_EXPIRED')) NOT VALID;
--rollback DELETE FROM wallet_change WHERE type <> 'CHANGED';
--rollback ALTER TABLE wallet_change DROP COLUMN type;

--changeset walletsvc:009-wallet-change-type-valid
--comment: The rows that were there are looked at while others write.
ALTER TABLE wallet_change VALIDATE CONSTRAINT wallet_change_type_is_known;
--rollback empty

--changeset walletsvc:009-operation-transaction runInTransaction:false
--comment: The ledger in the order of its commits, for those who follow it.
DROP INDEX CONCURRENTLY IF EXISTS operation_transaction_idx;
CREATE INDEX CONCURRENTLY operation_transaction_idx ON operation (transaction_id);
--rollback DROP INDEX operation_transaction_idx;

--changeset walletsvc:009-wallet-change-transaction runInTransaction:false
--comment: The same of what is no operation.
DROP INDEX CONCURRENTLY IF EXISTS wallet_change_transaction_idx;
CREATE INDEX CONCURRENTLY wallet_change_transaction_idx ON wallet_change (transaction_id);
--rollback DROP INDEX wallet_change_transaction_idx;

--changeset walletsvc:009-wallet-change-created-at runInTransaction:false
--comment: A long way through the log is walked by time.
DROP INDEX CONCURRENTLY IF EXISTS wallet_change_created_at_idx;
CREATE INDEX CONCURRENTLY wallet_change_created_at_idx ON wallet_change (created_at);
--rollback DROP INDEX wallet_change_created_at_idx;

--changeset walletsvc:009-hold-expiry runInTransaction:false
--comment: Holds that nobody asks about expire all the same.
DROP INDEX CONCURRENTLY IF EXISTS hold_expiry_idx;
CREATE INDEX CONCURRENTLY hold_expiry_idx ON hold (expires_at) WHERE status = 'ACTIVE' AND expires_at IS NOT NULL;
--rollback DROP INDEX hold_expiry_idx;

--changeset walletsvc:009-subscriber
--comment: Who is told what happens: where, of what, and how far they are in the log.
CREATE TABLE subscriber (
    id                    uuid NOT NULL,
    kind                  varchar(16) NOT NULL,
    name                  varchar(100) NOT NULL,
    url                   varchar(2000) NOT NULL DEFAULT '',
    types                 varchar(64)[] NOT NULL DEFAULT '{}',
    batch                 integer NOT NULL DEFAULT 1,
    is_enabled            boolean NOT NULL DEFAULT true,
    disabled_because      varchar(500) NOT NULL DEFAULT '',
    secret                varchar(100) NOT NULL DEFAULT '',
    secret_at             timestamptz NOT NULL DEFAULT statement_timestamp(),
    former_secret         varchar(100) NOT NULL DEFAULT '',
    former_secret_until   timestamptz,
    rotation_id           uuid,
    registered_with       jsonb,
    -- Up to `begin_xid` all is delivered; of what lies before `end_xid`, all up to (after_at, after_id).
    begin_xid             xid8 NOT NULL,
    end_xid               xid8,
    after_at              timestamptz,
    after_id              uuid,
    failures              integer NOT NULL DEFAULT 0,
    failing_since         timestamptz,
    retry_at              timestamptz,
    last_error            varchar(500) NOT NULL DEFAULT '',
    delivered_at          timestamptz,
    created_at            timestamptz NOT NULL DEFAULT statement_timestamp(),
    CONSTRAINT subscriber_pk PRIMARY KEY (id),
    CONSTRAINT subscriber_name_unique UNIQUE (name),
    CONSTRAINT subscriber_kind_is_known CHECK (kind IN ('WEBHOOK', 'BROKER')),
    CONSTRAINT subscriber_webhook_is_addressed CHECK (kind <> 'WEBHOOK' OR (url <> '' AND secret <> '')),
    CONSTRAINT subscriber_batch_positive CHECK (batch > 0),
    CONSTRAINT subscriber_failures_not_negative CHECK (failures >= 0),
    CONSTRAINT subscriber_window_is_whole CHECK (end_xid >= begin_xid),
    CONSTRAINT subscriber_position_is_in_window CHECK (
        (after_at IS NULL) = (after_id IS NULL) AND (after_at IS NULL OR end_xid IS NOT NULL)
    )
) WITH (fillfactor = 50);
GRANT SELECT, INSERT, UPDATE, DELETE ON subscriber TO walletsvc_app;

-- What could not be delivered, and what waits behind it in the same wallet. Everything else is in the log.
CREATE TABLE parked_event (
    id              bigint GENERATED ALWAYS AS IDENTITY,
    subscriber_id   uuid NOT NULL,
    event_id        varchar(64) NOT NULL,
    type            varchar(64) NOT NULL,
    wallet_id       uuid NOT NULL,
    event           text NOT NULL,
    status          varchar(16) NOT NULL DEFAULT 'WAITING',
    attempts        integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    last_error      varchar(500) NOT NULL DEFAULT '',
    created_at      timestamptz NOT NULL DEFAULT statement_timestamp(),
    CONSTRAINT parked_event_pk PRIMARY KEY (id),
    CONSTRAINT parked_event_event_unique UNIQUE (subscriber_id, event_id),
    CONSTRAINT parked_event_subscriber_fk FOREIGN KEY (subscriber_id) REFERENCES subscriber (id) ON DELETE CASCADE,
    CONSTRAINT parked_event_status_is_known CHECK (status IN ('WAITING', 'DEAD')),
    CONSTRAINT parked_event_attempts_not_negative CHECK (attempts >= 0)
);
CREATE INDEX parked_event_waiting_idx ON parked_event (subscriber_id, wallet_id, id) WHERE status = 'WAITING';
CREATE INDEX parked_event_dead_idx ON parked_event (subscriber_id, id) WHERE status = 'DEAD';
GRANT SELECT, INSERT, UPDATE, DELETE ON parked_event TO walletsvc_app;

-- The last attempts of each webhook, for whoever looks for a fault.
CREATE TABLE delivery (
    id            bigint GENERATED ALWAYS AS IDENTITY,
    subscriber_id uuid NOT NULL,
    event_id      varchar(64) NOT NULL,
    events        integer NOT NULL,
    at            timestamptz NOT NULL,
    duration      interval NOT NULL,
    status_code   integer,
    error         varchar(500) NOT NULL DEFAULT '',
    response      varchar(500) NOT NULL DEFAULT '',
    CONSTRAINT delivery_pk PRIMARY KEY (id),
    CONSTRAINT delivery_subscriber_fk FOREIGN KEY (subscriber_id) REFERENCES subscriber (id) ON DELETE CASCADE,
    CONSTRAINT delivery_events_positive CHECK (events > 0)
);
CREATE INDEX delivery_newest_idx ON delivery (subscriber_id, id DESC);
GRANT SELECT, INSERT, DELETE ON delivery TO walletsvc_app;
--rollback DROP TABLE delivery; DROP TABLE parked_event; DROP TABLE subscriber;
