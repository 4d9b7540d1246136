--liquibase formatted sql

--changeset walletsvc:015-verified-email
--comment: The e-mail address that an account has proved to receive mail at. It counts while it equals the account's address, so a changed address is unverified, whichever code changes it.
ALTER TABLE wallet_user ADD COLUMN verified_email varchar(254) NOT NULL DEFAULT '';
--rollback ALTER TABLE wallet_user DROP COLUMN verified_email;
