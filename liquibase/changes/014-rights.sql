--liquibase formatted sql

--changeset walletsvc:014-idempotency-key-namespace
--comment: A restricted caller's key is stored behind its namespace, "owner:5 order-1", so that it occupies no key of other callers. Widening a varchar rewrites no row.
SET LOCAL lock_timeout = '2s';
ALTER TABLE operation ALTER COLUMN idempotency_key TYPE varchar(300);
ALTER TABLE inbox ALTER COLUMN idempotency_key TYPE varchar(300);
--rollback ALTER TABLE operation ALTER COLUMN idempotency_key TYPE varchar(255);
--rollback ALTER TABLE inbox ALTER COLUMN idempotency_key TYPE varchar(255);
