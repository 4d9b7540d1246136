-- A webhook of 0.5.0 with a waiting event and a dead letter, and a check of the ledger.
INSERT INTO subscriber (id, kind, name, url, secret, begin_xid) VALUES
    ('00000000-0000-7000-8000-000000000051', 'WEBHOOK', 'shop', 'https://example.com/events', 'whsec_c2VjcmV0', '1');
INSERT INTO parked_event (subscriber_id, event_id, type, wallet_id, event, status) VALUES
    ('00000000-0000-7000-8000-000000000051', '00000000-0000-7000-8000-000000000011', 'operation.completed',
     '00000000-0000-7000-8000-00000000000c', '{}', 'WAITING'),
    ('00000000-0000-7000-8000-000000000051', '00000000-0000-7000-8000-000000000001', 'operation.completed',
     '00000000-0000-7000-8000-00000000000a', '{}', 'DEAD');
INSERT INTO ledger_check (began_at, wallets, differences) VALUES (statement_timestamp(), 4, 0);
