--liquibase formatted sql

--changeset walletsvc:003-operation
--comment: The ledger. The application may add lines and read them; it may not change or remove one.
CREATE TABLE operation (
    id              uuid NOT NULL,
    wallet_id       uuid NOT NULL,
    sequence        bigint,
    type            varchar(16) NOT NULL,
    amount          numeric(28, 4) NOT NULL,
    balance_after   numeric(28, 4),
    status          varchar(16) NOT NULL,
    reason          varchar(64),
    idempotency_key varchar(255),
    description     varchar(500) NOT NULL DEFAULT '',
    metadata        jsonb NOT NULL DEFAULT '{}',
    actor           varchar(200) NOT NULL DEFAULT '',
    created_at      timestamptz NOT NULL,
    transaction_id  xid8 NOT NULL DEFAULT pg_current_xact_id(),
    -- The id leads, because it is looked up alone; the wallet is in it, as in every key of this table, so
    -- that the table can be distributed by wallet.
    CONSTRAINT operation_pk PRIMARY KEY (id, wallet_id),
    CONSTRAINT operation_wallet_fk FOREIGN KEY (wallet_id) REFERENCES wallet (id),
    CONSTRAINT operation_sequence_unique UNIQUE (wallet_id, sequence),
    -- History and balance at a time: one order, total and the same as that of the commits.
    CONSTRAINT operation_created_at_unique UNIQUE (wallet_id, created_at),
    CONSTRAINT operation_type_is_known CHECK (type IN ('DEPOSIT', 'WITHDRAW')),
    CONSTRAINT operation_amount_positive CHECK (amount > 0),
    CONSTRAINT operation_sequence_positive CHECK (sequence > 0),
    CONSTRAINT operation_completed_or_rejected CHECK (
        (status = 'COMPLETED' AND sequence IS NOT NULL AND balance_after IS NOT NULL AND reason IS NULL)
        OR (status = 'REJECTED' AND sequence IS NULL AND balance_after IS NULL AND reason IS NOT NULL)
    ),
    CONSTRAINT operation_metadata_is_object CHECK (jsonb_typeof(metadata) = 'object')
);
GRANT SELECT, INSERT ON operation TO walletsvc_app;
--rollback DROP TABLE operation;

--changeset walletsvc:003-operation-indexes
--comment: A key counts once in its wallet, for ever. The others serve the operators' list, newest first.
CREATE UNIQUE INDEX operation_idempotency_key_unique ON operation (wallet_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX operation_newest_idx ON operation (created_at DESC);
CREATE INDEX operation_rejected_idx ON operation (created_at DESC) WHERE status = 'REJECTED';
CREATE INDEX operation_wallet_rejected_idx ON operation (wallet_id, created_at DESC) WHERE status = 'REJECTED';
--rollback DROP INDEX operation_idempotency_key_unique; DROP INDEX operation_newest_idx;
--rollback DROP INDEX operation_rejected_idx; DROP INDEX operation_wallet_rejected_idx;
