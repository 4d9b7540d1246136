--liquibase formatted sql

--changeset walletsvc:005-operation-links
--comment: Transfers, holds and reversals are operations too, linked to each other.
ALTER TABLE operation
    ADD COLUMN transfer_id uuid,
    ADD COLUMN counterparty_id uuid,
    ADD COLUMN hold_id uuid,
    ADD COLUMN reverses_id uuid,
    ADD COLUMN expires_at timestamptz,
    ADD COLUMN takes_rest boolean,
    ADD COLUMN accepted_at timestamptz,
    DROP CONSTRAINT operation_type_is_known,
    DROP CONSTRAINT operation_completed_or_rejected,
    ADD CONSTRAINT operation_type_is_known CHECK (type IN (
        'DEPOSIT', 'WITHDRAW', 'TRANSFER_IN', 'TRANSFER_OUT', 'HOLD', 'CAPTURE', 'VOID', 'REVERSAL_IN',
        'REVERSAL_OUT'
    )),
    -- Holding and voiding set money aside and free it: no money moves, and so there is no sequence.
    ADD CONSTRAINT operation_completed_or_rejected CHECK (
        (status = 'COMPLETED' AND reason IS NULL
            AND (sequence IS NULL) = (type IN ('HOLD', 'VOID'))
            AND (balance_after IS NULL) = (type IN ('HOLD', 'VOID')))
        OR (status = 'REJECTED' AND sequence IS NULL AND balance_after IS NULL AND reason IS NOT NULL)
    ),
    ADD CONSTRAINT operation_transfer_is_of_two_wallets CHECK (
        (transfer_id IS NULL) = (counterparty_id IS NULL) AND counterparty_id <> wallet_id
    ),
    ADD CONSTRAINT operation_transfer_is_linked CHECK (
        type NOT IN ('TRANSFER_IN', 'TRANSFER_OUT') OR transfer_id IS NOT NULL
    ),
    ADD CONSTRAINT operation_hold_is_ended CHECK ((hold_id IS NOT NULL) = (type IN ('CAPTURE', 'VOID'))),
    ADD CONSTRAINT operation_reversal_is_linked CHECK (
        (reverses_id IS NOT NULL) = (type IN ('REVERSAL_IN', 'REVERSAL_OUT'))
    ),
    ADD CONSTRAINT operation_expiry_is_of_hold CHECK (expires_at IS NULL OR type = 'HOLD');
--rollback ALTER TABLE operation
--rollback     DROP COLUMN transfer_id, DROP COLUMN counterparty_id, DROP COLUMN hold_id,
--rollback     DROP COLUMN reverses_id, DROP COLUMN expires_at, DROP COLUMN takes_rest,
--rollback     DROP COLUMN accepted_at,
--rollback     DROP CONSTRAINT operation_type_is_known,
--rollback     DROP CONSTRAINT operation_completed_or_rejected,
--rollback     ADD CONSTRAINT operation_type_is_known CHECK (type IN ('DEPOSIT', 'WITHDRAW')),
--rollback     ADD CONSTRAINT operation_completed_or_rejected CHECK (
--rollback         (status = 'COMPLETED' AND sequence IS NOT NULL AND balance_after IS NOT NULL AND reason IS NULL)
--rollback         OR (status = 'REJECTED' AND sequence IS NULL AND balance_after IS NULL AND reason IS NOT NULL)
--rollback     );

--changeset walletsvc:005-operation-indexes
--comment: The two sides of a transfer; what was taken back of an operation; the history of one type, however rare; the balance at a time from the index alone.
CREATE INDEX operation_transfer_idx ON operation (transfer_id) WHERE transfer_id IS NOT NULL;
CREATE INDEX operation_transfer_newest_idx ON operation (created_at DESC) WHERE type = 'TRANSFER_OUT';
CREATE INDEX operation_hold_idx ON operation (wallet_id, hold_id) WHERE hold_id IS NOT NULL;
CREATE INDEX operation_reverses_idx ON operation (wallet_id, reverses_id) INCLUDE (amount, status)
    WHERE reverses_id IS NOT NULL;
-- Deposits and withdrawals are most of a history: one of them is soon found without, and they are spared it.
CREATE INDEX operation_type_idx ON operation (wallet_id, type, created_at DESC)
    WHERE type NOT IN ('DEPOSIT', 'WITHDRAW');
ALTER TABLE operation DROP CONSTRAINT operation_created_at_unique;
ALTER TABLE operation ADD CONSTRAINT operation_created_at_unique
    UNIQUE (wallet_id, created_at) INCLUDE (sequence, balance_after);
--rollback DROP INDEX operation_transfer_newest_idx;
--rollback DROP INDEX operation_transfer_idx; DROP INDEX operation_hold_idx; DROP INDEX operation_reverses_idx;
--rollback DROP INDEX operation_type_idx;
--rollback ALTER TABLE operation DROP CONSTRAINT operation_created_at_unique;
--rollback ALTER TABLE operation ADD CONSTRAINT operation_created_at_unique UNIQUE (wallet_id, created_at);

--changeset walletsvc:005-hold
--comment: Money set aside. What was asked is in the ledger; here is how the hold stands. It ends once.
CREATE TABLE hold (
    id              uuid NOT NULL,
    wallet_id       uuid NOT NULL,
    amount          numeric(28, 4) NOT NULL,
    status          varchar(16) NOT NULL,
    expires_at      timestamptz,
    captured_amount numeric(28, 4),
    operation_id    uuid,
    description     varchar(500) NOT NULL DEFAULT '',
    created_at      timestamptz NOT NULL,
    ended_at        timestamptz,
    CONSTRAINT hold_pk PRIMARY KEY (id, wallet_id),
    CONSTRAINT hold_wallet_fk FOREIGN KEY (wallet_id) REFERENCES wallet (id),
    CONSTRAINT hold_amount_positive CHECK (amount > 0),
    CONSTRAINT hold_status_is_known CHECK (status IN ('ACTIVE', 'CAPTURED', 'VOIDED', 'EXPIRED')),
    CONSTRAINT hold_active_is_not_ended CHECK ((ended_at IS NULL) = (status = 'ACTIVE')),
    CONSTRAINT hold_captured_within_amount CHECK (captured_amount > 0 AND captured_amount <= amount),
    CONSTRAINT hold_captured_is_by_operation CHECK (
        (status = 'CAPTURED') = (captured_amount IS NOT NULL) AND (status = 'CAPTURED') = (operation_id IS NOT NULL)
    ),
    CONSTRAINT hold_expired_is_ended_in_time CHECK (status <> 'EXPIRED' OR ended_at = expires_at)
) WITH (fillfactor = 80);
CREATE INDEX hold_wallet_idx ON hold (wallet_id, created_at DESC, id DESC);
CREATE INDEX hold_active_idx ON hold (wallet_id, expires_at) INCLUDE (amount) WHERE status = 'ACTIVE';
CREATE INDEX hold_newest_idx ON hold (created_at DESC);
-- What was held at a time: the holds that ended after it, or have not yet.
CREATE INDEX hold_end_idx ON hold (wallet_id, coalesce(ended_at, expires_at, 'infinity'));
GRANT SELECT, INSERT ON hold TO walletsvc_app;
GRANT UPDATE (status, captured_amount, operation_id, ended_at) ON hold TO walletsvc_app;

-- The active holds that expire first: until then `held` needs no second look.
ALTER TABLE wallet ADD COLUMN next_expiry_at timestamptz;
GRANT UPDATE (next_expiry_at) ON wallet TO walletsvc_app;
--rollback ALTER TABLE wallet DROP COLUMN next_expiry_at;
--rollback DROP TABLE hold;
