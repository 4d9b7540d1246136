--liquibase formatted sql

--changeset walletsvc:002-wallet
--comment: One balance in one currency. The limits that the rules explain kindly are guaranteed here.
CREATE TABLE wallet (
    id              uuid NOT NULL,
    currency        varchar(3) NOT NULL,
    balance         numeric(28, 4) NOT NULL DEFAULT 0,
    held            numeric(28, 4) NOT NULL DEFAULT 0,
    overdraft_limit numeric(28, 4) NOT NULL DEFAULT 0,
    max_balance     numeric(28, 4),
    sequence        bigint NOT NULL DEFAULT 0,
    status          varchar(16) NOT NULL DEFAULT 'ACTIVE',
    label           varchar(200) NOT NULL DEFAULT '',
    metadata        jsonb NOT NULL DEFAULT '{}',
    owner_id        bigint,
    opened_with     jsonb,
    created_at      timestamptz NOT NULL DEFAULT statement_timestamp(),
    updated_at      timestamptz NOT NULL DEFAULT statement_timestamp(),
    CONSTRAINT wallet_pk PRIMARY KEY (id),
    CONSTRAINT wallet_owner_fk FOREIGN KEY (owner_id) REFERENCES wallet_user (id),
    CONSTRAINT wallet_currency_is_a_code CHECK (currency ~ '^[A-Z]{3}$'),
    CONSTRAINT wallet_held_not_negative CHECK (held >= 0),
    CONSTRAINT wallet_overdraft_limit_not_negative CHECK (overdraft_limit >= 0),
    CONSTRAINT wallet_available_within_overdraft_limit CHECK (balance - held >= -overdraft_limit),
    CONSTRAINT wallet_balance_within_max_balance CHECK (balance <= max_balance),
    CONSTRAINT wallet_max_balance_not_negative CHECK (max_balance >= 0),
    CONSTRAINT wallet_sequence_not_negative CHECK (sequence >= 0),
    CONSTRAINT wallet_status_is_known CHECK (status IN ('ACTIVE', 'FROZEN', 'CLOSED')),
    CONSTRAINT wallet_closed_is_empty CHECK (status <> 'CLOSED' OR (balance = 0 AND held = 0)),
    CONSTRAINT wallet_metadata_is_object CHECK (jsonb_typeof(metadata) = 'object')
) WITH (fillfactor = 50);
-- Half of each page stays free, and no index holds a column that an operation changes: every update of a
-- balance is a heap-only one (HOT), so that a hot wallet stays on its page and grows no index.

GRANT SELECT, INSERT ON wallet TO walletsvc_app;
GRANT UPDATE (balance, held, overdraft_limit, max_balance, sequence, status, label, metadata, owner_id, updated_at)
    ON wallet TO walletsvc_app;
--rollback DROP TABLE wallet;

--changeset walletsvc:002-wallet-indexes
--comment: The list of wallets, newest first; an owner's wallets; the operators' search by the start of a label.
CREATE INDEX wallet_newest_idx ON wallet (created_at DESC, id DESC);
CREATE INDEX wallet_owner_idx ON wallet (owner_id) WHERE owner_id IS NOT NULL;
CREATE INDEX wallet_label_idx ON wallet (upper(label::text) text_pattern_ops);
--rollback DROP INDEX wallet_newest_idx; DROP INDEX wallet_owner_idx; DROP INDEX wallet_label_idx;
