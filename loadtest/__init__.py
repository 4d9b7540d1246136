"""The code of `make bench`, `make request-costs` and `make loadtest`. The service imports none of it."""
