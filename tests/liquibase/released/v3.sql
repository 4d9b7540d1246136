-- An API key of 0.3.0, restricted to the wallets of its owner.
INSERT INTO api_key (prefix, digest, name, owner_id, is_restricted_to_owner, scopes)
    SELECT 'released', sha256('secret'), 'shop', id, true, '{wallets:read,operations:deposit}' FROM wallet_user;
