--liquibase formatted sql

--changeset walletsvc:004-wallet-change
--comment: Changes that move no money (freeze, close, rename): what, by whom, why. Append-only as the ledger is.
CREATE TABLE wallet_change (
    id             uuid NOT NULL,
    wallet_id      uuid NOT NULL,
    changes        jsonb NOT NULL,
    actor          varchar(200) NOT NULL DEFAULT '',
    reason         varchar(500) NOT NULL DEFAULT '',
    created_at     timestamptz NOT NULL,
    transaction_id xid8 NOT NULL DEFAULT pg_current_xact_id(),
    CONSTRAINT wallet_change_pk PRIMARY KEY (wallet_id, id),
    CONSTRAINT wallet_change_wallet_fk FOREIGN KEY (wallet_id) REFERENCES wallet (id),
    CONSTRAINT wallet_change_changes_is_object CHECK (jsonb_typeof(changes) = 'object')
);
CREATE INDEX wallet_change_newest_idx ON wallet_change (wallet_id, created_at DESC);
GRANT SELECT, INSERT ON wallet_change TO walletsvc_app;
--rollback DROP TABLE wallet_change;
