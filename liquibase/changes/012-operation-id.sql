--liquibase formatted sql

--changeset walletsvc:012-operation-id splitStatements:false
--comment: An id names one operation over all wallets. The ledger's keys contain the wallet, so that its tables can be distributed; this table is the guarantee that they cannot give.
CREATE TABLE operation_id (
    id        uuid NOT NULL,
    wallet_id uuid NOT NULL,
    CONSTRAINT operation_id_pk PRIMARY KEY (id) INCLUDE (wallet_id)
);
GRANT SELECT, INSERT ON operation_id TO walletsvc_app;

CREATE FUNCTION register_operation_ids() RETURNS trigger LANGUAGE plpgsql AS $function$
DECLARE
    registered bigint;
    conflict   record;
BEGIN
    -- In ascending order, so that two transactions that register the same ids cannot deadlock. One that meets an
    -- id of an open transaction waits for its end; the query below then sees what that transaction committed.
    INSERT INTO operation_id (id, wallet_id) SELECT id, wallet_id FROM added ORDER BY id ON CONFLICT (id) DO NOTHING;
    GET DIAGNOSTICS registered = ROW_COUNT;
    IF registered = (SELECT count(*) FROM added) THEN
        RETURN NULL;
    END IF;
    -- An operation that was accepted asynchronously brings the id that its inbox entry registered.
    SELECT added.id, added.wallet_id, operation_id.wallet_id AS owner INTO conflict
    FROM added JOIN operation_id USING (id) WHERE operation_id.wallet_id <> added.wallet_id
    ORDER BY added.id LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'the id % of wallet % names an operation of wallet %', conflict.id, conflict.wallet_id, conflict.owner
            USING ERRCODE = 'unique_violation', TABLE = 'operation_id', CONSTRAINT = 'operation_id_pk';
    END IF;
    RETURN NULL;
END
$function$;

-- Creating a trigger waits for the transactions that write the table: each operation from before is committed now.
CREATE TRIGGER operation_registers_ids AFTER INSERT ON operation
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION register_operation_ids();
CREATE TRIGGER inbox_registers_ids AFTER INSERT ON inbox
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION register_operation_ids();
--rollback DROP TRIGGER operation_registers_ids ON operation; DROP TRIGGER inbox_registers_ids ON inbox;
--rollback DROP FUNCTION register_operation_ids; DROP TABLE operation_id;

--changeset walletsvc:012-operation-id-of-existing-operations splitStatements:false
--comment: Register the ids that are there already, while the service goes on. Fails, and names them, if one names two operations.
INSERT INTO operation_id (id, wallet_id)
    SELECT id, wallet_id FROM operation UNION ALL SELECT id, wallet_id FROM inbox ON CONFLICT (id) DO NOTHING;
DO $block$
DECLARE
    duplicates text;
BEGIN
    SELECT string_agg(format('%s (wallets %s and %s)', id, owner, wallet_id), '; ') INTO duplicates FROM (
        SELECT used.id, used.wallet_id, operation_id.wallet_id AS owner
        FROM (SELECT id, wallet_id FROM operation UNION ALL SELECT id, wallet_id FROM inbox) AS used
            JOIN operation_id USING (id)
        WHERE used.wallet_id <> operation_id.wallet_id LIMIT 100
    ) AS repeated;
    IF duplicates IS NOT NULL THEN
        RAISE EXCEPTION 'these ids name operations of more than one wallet: %', duplicates
            USING HINT = 'See "Duplicate ids" in docs/operations.md.';
    END IF;
END
$block$;
--rollback SELECT 1;

--changeset walletsvc:012-hold-of-operation
--comment: A hold is placed by the operation with its id, in its wallet: an id that names one operation names one hold.
ALTER TABLE hold ADD CONSTRAINT hold_operation_fk
    FOREIGN KEY (id, wallet_id) REFERENCES operation (id, wallet_id) NOT VALID;
ALTER TABLE hold VALIDATE CONSTRAINT hold_operation_fk;
--rollback ALTER TABLE hold DROP CONSTRAINT hold_operation_fk;
