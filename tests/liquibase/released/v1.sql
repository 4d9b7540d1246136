-- Two wallets of 0.1.0: one of a user, with a refused withdrawal; one that was renamed and never used.
INSERT INTO wallet_user (id, password, is_superuser, username, first_name, last_name, email, is_staff, is_active, date_joined)
    OVERRIDING SYSTEM VALUE
    VALUES (1, 'unusable', false, 'anna', 'Anna', '', 'anna@example.com', false, true, '2026-01-01 00:00Z');
INSERT INTO wallet (id, currency, balance, overdraft_limit, sequence, label, metadata, owner_id) VALUES
    ('00000000-0000-7000-8000-00000000000a', 'EUR', 70, 20, 2, 'Anna''s', '{"shop": "5"}', 1),
    ('00000000-0000-7000-8000-00000000000b', 'EUR', 0, 0, 0, 'renamed', '{}', NULL);
INSERT INTO operation (id, wallet_id, sequence, type, amount, balance_after, status, reason, idempotency_key, description,
                       metadata, actor, created_at) VALUES
    ('00000000-0000-7000-8000-000000000001', '00000000-0000-7000-8000-00000000000a', 1, 'DEPOSIT', 100.5, 100.5,
     'COMPLETED', NULL, 'salary', E'a\ttab, a \\ and a line\nend', '{"a": 1.50, "b": [null]}', 'open', '2026-01-01 00:00:01Z'),
    ('00000000-0000-7000-8000-000000000002', '00000000-0000-7000-8000-00000000000a', NULL, 'WITHDRAW', 1000, NULL,
     'REJECTED', 'insufficient_funds', NULL, '', '{}', '', '2026-01-01 00:00:02Z'),
    ('00000000-0000-7000-8000-000000000003', '00000000-0000-7000-8000-00000000000a', 2, 'WITHDRAW', 30.5, 70,
     'COMPLETED', NULL, NULL, '', '{}', '', '2026-01-01 00:00:03Z');
INSERT INTO wallet_change (id, wallet_id, changes, actor, created_at) VALUES
    ('00000000-0000-7000-8000-000000000004', '00000000-0000-7000-8000-00000000000b', '{"label": ["", "renamed"]}', 'open',
     '2026-01-01 00:00:04Z');
