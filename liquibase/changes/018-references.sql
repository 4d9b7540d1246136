--liquibase formatted sql

--changeset walletsvc:018-reference
--comment: The client's own name for a movement, such as an order number. Not unique. Empty: it gave none.
SET LOCAL lock_timeout = '2s';
ALTER TABLE operation ADD COLUMN reference varchar(255) NOT NULL DEFAULT '';
ALTER TABLE inbox ADD COLUMN reference varchar(255) NOT NULL DEFAULT '';
ALTER TABLE hold
    ADD COLUMN reference varchar(255) NOT NULL DEFAULT '',
    ADD COLUMN metadata jsonb NOT NULL DEFAULT '{}',
    ADD CONSTRAINT hold_metadata_is_object CHECK (jsonb_typeof(metadata) = 'object') NOT VALID;
--rollback ALTER TABLE hold DROP COLUMN metadata, DROP COLUMN reference;
--rollback ALTER TABLE inbox DROP COLUMN reference;
--rollback ALTER TABLE operation DROP COLUMN reference;

--changeset walletsvc:018-hold-metadata-valid
--comment: Existing rows are checked while other transactions write.
ALTER TABLE hold VALIDATE CONSTRAINT hold_metadata_is_object;
--rollback empty

--changeset walletsvc:018-external-id
--comment: The client's own name for a wallet. Unique among the wallets of one owner, and among those without an owner.
SET LOCAL lock_timeout = '2s';
ALTER TABLE wallet ADD COLUMN external_id varchar(255);
GRANT UPDATE (external_id) ON wallet TO walletsvc_app;
--rollback ALTER TABLE wallet DROP COLUMN external_id;

--changeset walletsvc:018-external-id-unique runInTransaction:false
--comment: The external id leads, because wallets are looked up by it alone.
DROP INDEX CONCURRENTLY IF EXISTS wallet_external_id_unique;
CREATE UNIQUE INDEX CONCURRENTLY wallet_external_id_unique ON wallet (external_id, coalesce(owner_id, 0))
    WHERE external_id IS NOT NULL;
--rollback DROP INDEX wallet_external_id_unique;

--changeset walletsvc:018-operation-reference-idx runInTransaction:false
--comment: The operations with a reference, newest first: of all wallets here, of one wallet below. An operation without one costs nothing.
DROP INDEX CONCURRENTLY IF EXISTS operation_reference_idx;
CREATE INDEX CONCURRENTLY operation_reference_idx ON operation (reference, created_at DESC, id DESC)
    WHERE reference <> '';
--rollback DROP INDEX operation_reference_idx;

--changeset walletsvc:018-operation-wallet-reference-idx runInTransaction:false
--comment: A client that is restricted to its own wallets must not wait for the rows of others.
DROP INDEX CONCURRENTLY IF EXISTS operation_wallet_reference_idx;
CREATE INDEX CONCURRENTLY operation_wallet_reference_idx ON operation (wallet_id, reference, created_at DESC)
    WHERE reference <> '';
--rollback DROP INDEX operation_wallet_reference_idx;

--changeset walletsvc:018-operation-key-idx runInTransaction:false
--comment: The operations of an idempotency key as the client sent it, in all wallets and namespaces. A hash index is small, and no query needs the order of keys.
DROP INDEX CONCURRENTLY IF EXISTS operation_key_idx;
CREATE INDEX CONCURRENTLY operation_key_idx ON operation USING hash (split_part(idempotency_key, ' ', -1))
    WHERE idempotency_key IS NOT NULL;
--rollback DROP INDEX operation_key_idx;

--changeset walletsvc:018-operation-metadata-idx runInTransaction:false
--comment: Operations by a key of their metadata. One without metadata costs nothing. Without fastupdate, because a transaction that happens to move the pending entries into the index would keep its wallet locked meanwhile.
DROP INDEX CONCURRENTLY IF EXISTS operation_metadata_idx;
CREATE INDEX CONCURRENTLY operation_metadata_idx ON operation USING gin (metadata jsonb_path_ops)
    WITH (fastupdate = off) WHERE metadata <> '{}';
--rollback DROP INDEX operation_metadata_idx;

--changeset walletsvc:018-wallet-metadata-idx runInTransaction:false
--comment: Wallets by a key of their metadata. No index holds a column that an operation changes.
DROP INDEX CONCURRENTLY IF EXISTS wallet_metadata_idx;
CREATE INDEX CONCURRENTLY wallet_metadata_idx ON wallet USING gin (metadata jsonb_path_ops)
    WITH (fastupdate = off) WHERE metadata <> '{}';
--rollback DROP INDEX wallet_metadata_idx;
