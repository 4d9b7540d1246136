"""Authentication and permissions: API keys, sessions, second factors, scopes and rate limits."""
