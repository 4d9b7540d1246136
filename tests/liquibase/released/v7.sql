-- An entry of 0.7.0 that was set aside, a verified address, a waiting position of a subscriber, and a keyed request.
INSERT INTO inbox (id, wallet_id, type, amount, created_at, sees_target, attempts, last_error, set_aside_at) VALUES
    ('00000000-0000-7000-8000-000000000071', '00000000-0000-7000-8000-00000000000e', 'DEPOSIT', 1, '2026-01-07 00:00:01Z',
     true, 5, 'an error', '2026-01-07 00:00:02Z');
INSERT INTO wallet_user (id, password, is_superuser, username, first_name, last_name, email, is_staff, is_active,
    date_joined, verified_email)
    VALUES (71, '!', false, 'carol@example.com', 'Carol', '', 'carol@example.com', false, true, '2026-01-07 00:00:00Z',
        'carol@example.com');
INSERT INTO parked_event (subscriber_id, event_id, type, wallet_id, status, entry_at, entry_id) VALUES
    ('00000000-0000-7000-8000-000000000051', '00000000-0000-7000-8000-000000000061:completed',
     'wallet.operation.completed', '00000000-0000-7000-8000-00000000000e', 'WAITING', '2026-01-06 00:00:01Z',
     '00000000-0000-7000-8000-000000000061');
INSERT INTO keyed_request (id, domain, key, digest) VALUES
    ('00000000-0000-7000-8000-000000000072', '', 'payout-1', sha256('a request'));
