-- A user of 0.4.0, whose username is the e-mail address.
INSERT INTO wallet_user (id, password, is_superuser, username, first_name, last_name, email, is_staff, is_active, date_joined)
    OVERRIDING SYSTEM VALUE
    VALUES (2, 'unusable', false, 'boris@example.com', 'Boris', '', 'boris@example.com', false, true, '2026-01-04 00:00Z');
UPDATE wallet SET owner_id = 2 WHERE id = '00000000-0000-7000-8000-00000000000c';
