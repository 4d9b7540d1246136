"""What happens is told to others: read from the ledger's own log, in the order of the commits.

`log` reads it, `cloudevents` renders it, `subscribers` has the position of each subscriber, `parking` the
wallets that wait, `relay` delivers, and each kind of destination has a module: `webhooks`, `rabbitmq` and
`kafka`. `live` is for clients that wait at the API.
"""
