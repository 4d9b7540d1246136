-- An operation of 0.6.0 with its hash, in its own wallet, and a check of the ledger.
INSERT INTO wallet (id, currency, balance, sequence, hash) VALUES ('00000000-0000-7000-8000-00000000000e', 'EUR', 1, 1, '');
WITH written AS (
    INSERT INTO operation (id, wallet_id, sequence, type, amount, balance_after, status, created_at, hash) VALUES
        ('00000000-0000-7000-8000-000000000061', '00000000-0000-7000-8000-00000000000e', 1, 'DEPOSIT', 1, 1, 'COMPLETED',
         '2026-01-06 00:00:01Z',
         sha256(convert_to(array_to_string(ARRAY[
             '00000000-0000-7000-8000-000000000061', '00000000-0000-7000-8000-00000000000e', '1', 'DEPOSIT', '1.0000',
             '1.0000', 'COMPLETED', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '', '{}', '', NULL,
             '2026-01-06 00:00:01+00'
         ], E'\t', '\N'), 'UTF8')))
    RETURNING wallet_id, hash
)
UPDATE wallet SET hash = written.hash FROM written WHERE wallet.id = written.wallet_id;
INSERT INTO ledger_check (began_at, wallets, differences, operations, snapshot, is_incremental)
    VALUES (statement_timestamp(), 5, 0, 13, pg_current_snapshot(), false);
