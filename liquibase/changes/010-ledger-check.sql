--liquibase formatted sql

--changeset walletsvc:010-ledger-check
--comment: When the whole ledger was verified, and what came of it. The application may add lines and read them.
CREATE TABLE ledger_check (
    id          bigint GENERATED ALWAYS AS IDENTITY,
    began_at    timestamptz NOT NULL,
    ended_at    timestamptz NOT NULL DEFAULT statement_timestamp(),
    wallets     bigint NOT NULL,
    differences bigint NOT NULL,
    CONSTRAINT ledger_check_pk PRIMARY KEY (id),
    CONSTRAINT ledger_check_ended_is_after_began CHECK (ended_at >= began_at),
    CONSTRAINT ledger_check_wallets_not_negative CHECK (wallets >= 0),
    CONSTRAINT ledger_check_differences_not_negative CHECK (differences >= 0)
);
GRANT SELECT, INSERT ON ledger_check TO walletsvc_app;
--rollback DROP TABLE ledger_check;
