"""What people see in a browser: sign-up, their wallet, transfers. Rendered here, without a build step."""
