"""What `make bench` and `make loadtest` need; the service imports none of it."""
