"""Deliver events to subscribers: read from the ledger's own log, in the order of the commits.

`log` reads the ledger, `cloudevents` renders its entries as events, `delivery_state` stores the position of
each subscriber, `parking` stores the wallets whose events wait for a retry, and `relay` delivers. Each kind
of destination has a module: `webhooks`, `rabbitmq` and `kafka`. `live` streams events to clients of the API.
"""
