"""Pages for users: sign-up, login, wallets and transfers, rendered by the server without a build step."""
