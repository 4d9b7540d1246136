--liquibase formatted sql

--changeset walletsvc:017-keyed-request
--comment: The first request under an Idempotency-Key that no wallet's ledger remembers: a bulk, or what makes a wallet or webhook. Its digest refuses another request under the key. The application may add lines and read them.
CREATE TABLE keyed_request (
    id         uuid NOT NULL,
    domain     varchar(64) NOT NULL,
    key        varchar(255) NOT NULL,
    digest     bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    CONSTRAINT keyed_request_pk PRIMARY KEY (id),
    CONSTRAINT keyed_request_key_unique UNIQUE (domain, key),
    CONSTRAINT keyed_request_key_not_empty CHECK (key <> ''),
    CONSTRAINT keyed_request_digest_is_sha256 CHECK (octet_length(digest) = 32)
);
GRANT SELECT, INSERT ON keyed_request TO walletsvc_app;
--rollback DROP TABLE keyed_request;
