--liquibase formatted sql

--changeset walletsvc:006-inbox
--comment: Operations that were accepted for later, in the order in which they came. Decided, they leave for the ledger.
CREATE TABLE inbox (
    position        bigint GENERATED ALWAYS AS IDENTITY,
    id              uuid NOT NULL,
    wallet_id       uuid NOT NULL,
    type            varchar(16) NOT NULL,
    amount          numeric(28, 4) NOT NULL,
    idempotency_key varchar(255),
    counterparty_id uuid,
    hold_id         uuid,
    reverses_id     uuid,
    takes_rest      boolean,
    description     varchar(500) NOT NULL DEFAULT '',
    metadata        jsonb NOT NULL DEFAULT '{}',
    actor           varchar(200) NOT NULL DEFAULT '',
    created_at      timestamptz NOT NULL,
    CONSTRAINT inbox_pk PRIMARY KEY (id, wallet_id),
    CONSTRAINT inbox_wallet_fk FOREIGN KEY (wallet_id) REFERENCES wallet (id),
    CONSTRAINT inbox_amount_positive CHECK (amount > 0),
    CONSTRAINT inbox_metadata_is_object CHECK (jsonb_typeof(metadata) = 'object')
);
CREATE UNIQUE INDEX inbox_idempotency_key_unique ON inbox (wallet_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
-- What is drained first, and whether something earlier waits for the same wallet.
CREATE INDEX inbox_position_idx ON inbox (position);
CREATE INDEX inbox_wallet_idx ON inbox (wallet_id, position);
CREATE INDEX inbox_counterparty_idx ON inbox (counterparty_id, position) WHERE counterparty_id IS NOT NULL;
GRANT SELECT, INSERT, DELETE ON inbox TO walletsvc_app;
-- FOR UPDATE wants the right to update something; this nobody can set.
GRANT UPDATE (position) ON inbox TO walletsvc_app;
--rollback DROP TABLE inbox;
