--liquibase formatted sql

--changeset walletsvc:011-hash-chain splitStatements:false
--comment: Each operation carries a hash over itself and its predecessor in the wallet, and the wallet the last: nothing is changed, removed or added without a trace. What is there already is chained here; nobody writes meanwhile.
LOCK TABLE wallet, operation IN SHARE ROW EXCLUSIVE MODE;
ALTER TABLE wallet ADD COLUMN hash bytea NOT NULL DEFAULT '';
ALTER TABLE operation ADD COLUMN hash bytea;
GRANT UPDATE (hash) ON wallet TO walletsvc_app;

-- As COPY writes a text (wallets/ledger/chain.py).
CREATE FUNCTION pg_temp.as_copied(value text) RETURNS text LANGUAGE sql IMMUTABLE AS $function$
    SELECT replace(replace(replace(replace(replace(replace(replace(value,
        E'\\', E'\\\\'), E'\b', E'\\b'), E'\f', E'\\f'), E'\n', E'\\n'), E'\r', E'\\r'), E'\t', E'\\t'), E'\v', E'\\v')
$function$;
SET LOCAL timezone = 'UTC';
SET LOCAL datestyle = 'ISO';
DO $block$
DECLARE
    line record;
    chained uuid;
    last bytea;
BEGIN
    FOR line IN
        SELECT id, wallet_id, array_to_string(ARRAY[
            id::text, wallet_id::text, sequence::text, type, amount::text, balance_after::text, status, reason,
            pg_temp.as_copied(idempotency_key), transfer_id::text, counterparty_id::text, hold_id::text,
            reverses_id::text, expires_at::text, CASE takes_rest WHEN true THEN 't' WHEN false THEN 'f' END,
            pg_temp.as_copied(description), pg_temp.as_copied(metadata::text), pg_temp.as_copied(actor),
            accepted_at::text, created_at::text
        ], E'\t', '\N') AS canonical
        FROM operation ORDER BY wallet_id, created_at
    LOOP
        IF chained IS DISTINCT FROM line.wallet_id THEN
            chained := line.wallet_id;
            last := '';
        END IF;
        last := sha256(last || convert_to(line.canonical, 'UTF8'));
        UPDATE operation SET hash = last WHERE id = line.id AND wallet_id = line.wallet_id;
    END LOOP;
    UPDATE wallet SET hash = (
        SELECT hash FROM operation WHERE wallet_id = wallet.id ORDER BY created_at DESC LIMIT 1
    ) WHERE EXISTS (SELECT FROM operation WHERE wallet_id = wallet.id);
END
$block$;

ALTER TABLE operation
    ALTER COLUMN hash SET NOT NULL,
    ADD CONSTRAINT operation_hash_is_sha256 CHECK (octet_length(hash) = 32);
ALTER TABLE wallet ADD CONSTRAINT wallet_hash_is_sha256 CHECK (octet_length(hash) IN (0, 32));
--rollback ALTER TABLE operation DROP COLUMN hash; ALTER TABLE wallet DROP COLUMN hash;

--changeset walletsvc:011-ledger-check-snapshot
--comment: Up to where a check has seen the ledger: the next one may look at what came later alone.
ALTER TABLE ledger_check
    ADD COLUMN operations bigint NOT NULL DEFAULT 0,
    ADD COLUMN snapshot pg_snapshot,
    ADD COLUMN is_incremental boolean NOT NULL DEFAULT false,
    ADD CONSTRAINT ledger_check_operations_not_negative CHECK (operations >= 0);
--rollback ALTER TABLE ledger_check DROP COLUMN operations, DROP COLUMN snapshot, DROP COLUMN is_incremental;
