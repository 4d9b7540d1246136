--liquibase formatted sql

--changeset walletsvc:014-idempotency-key-namespace
--comment: A restricted caller's key is stored behind its namespace, "owner:5 order-1", so that it occupies no key of other callers. Widening a varchar rewrites no row.
SET LOCAL lock_timeout = '2s';
ALTER TABLE operation ALTER COLUMN idempotency_key TYPE varchar(300);
ALTER TABLE inbox ALTER COLUMN idempotency_key TYPE varchar(300);
--rollback ALTER TABLE operation ALTER COLUMN idempotency_key TYPE varchar(255);
--rollback ALTER TABLE inbox ALTER COLUMN idempotency_key TYPE varchar(255);

--changeset walletsvc:014-limits-scope
--comment: An overdraft limit lends money: it has a scope of its own.
ALTER TABLE api_key
    DROP CONSTRAINT api_key_scopes_is_known,
    ADD CONSTRAINT api_key_scopes_is_known CHECK (
        cardinality(scopes) > 0 AND scopes <@ ARRAY[
            'wallets:read', 'wallets:write', 'limits:write', 'operations:deposit', 'operations:withdraw',
            'transfers:write', 'holds:write', 'admin'
        ]
    );
--rollback ALTER TABLE api_key
--rollback     DROP CONSTRAINT api_key_scopes_is_known,
--rollback     ADD CONSTRAINT api_key_scopes_is_known CHECK (
--rollback         cardinality(scopes) > 0 AND scopes <@ ARRAY[
--rollback             'wallets:read', 'wallets:write', 'operations:deposit', 'operations:withdraw', 'transfers:write',
--rollback             'holds:write', 'admin'
--rollback         ]
--rollback     );

--changeset walletsvc:014-inbox-sees-target
--comment: Whether the caller of an accepted transfer may read the other wallet, and so may learn why it refused the money. Null: not said, by code that did not know; then it may not.
ALTER TABLE inbox ADD COLUMN sees_target boolean;
--rollback ALTER TABLE inbox DROP COLUMN sees_target;
