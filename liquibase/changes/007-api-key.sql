--liquibase formatted sql

--changeset walletsvc:007-api-key
--comment: What programs call the API with. Of the secret only its SHA-256 is here; a key is revoked, never deleted.
CREATE TABLE api_key (
    prefix                 varchar(8) NOT NULL,
    digest                 bytea NOT NULL,
    name                   varchar(200) NOT NULL,
    owner_id               bigint,
    is_restricted_to_owner boolean NOT NULL DEFAULT false,
    scopes                 text[] NOT NULL,
    created_at             timestamptz NOT NULL DEFAULT statement_timestamp(),
    expires_at             timestamptz,
    revoked_at             timestamptz,
    last_used_at           timestamptz,
    CONSTRAINT api_key_pk PRIMARY KEY (prefix),
    CONSTRAINT api_key_owner_fk FOREIGN KEY (owner_id) REFERENCES wallet_user (id),
    CONSTRAINT api_key_prefix_is_plain CHECK (prefix ~ '^[a-z0-9]{8}$'),
    CONSTRAINT api_key_digest_is_sha256 CHECK (octet_length(digest) = 32),
    CONSTRAINT api_key_scopes_is_known CHECK (
        cardinality(scopes) > 0 AND scopes <@ ARRAY[
            'wallets:read', 'wallets:write', 'operations:deposit', 'operations:withdraw', 'transfers:write',
            'holds:write', 'admin'
        ]
    ),
    CONSTRAINT api_key_restricted_is_owned CHECK (owner_id IS NOT NULL OR NOT is_restricted_to_owner)
);
CREATE INDEX api_key_newest_idx ON api_key (created_at DESC, prefix DESC);
CREATE INDEX api_key_owner_idx ON api_key (owner_id) WHERE owner_id IS NOT NULL;
GRANT SELECT, INSERT ON api_key TO walletsvc_app;
GRANT UPDATE (revoked_at, last_used_at) ON api_key TO walletsvc_app;
--rollback DROP TABLE api_key;

--changeset walletsvc:007-wallet-owner-index
--comment: The list of an owner's wallets, newest first, as a restricted key asks for it.
CREATE INDEX wallet_owner_newest_idx ON wallet (owner_id, created_at DESC, id DESC) WHERE owner_id IS NOT NULL;
DROP INDEX wallet_owner_idx;
--rollback CREATE INDEX wallet_owner_idx ON wallet (owner_id) WHERE owner_id IS NOT NULL;
--rollback DROP INDEX wallet_owner_newest_idx;
