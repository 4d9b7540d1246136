"""What happens is told to others: read from the ledger's own log, in the order of the commits.

`log` reads it, `cloudevents` says it, `subscribers` knows who is where in it, `relay` delivers, and a module
for each kind of destination says how: `webhooks`, `rabbitmq`, `kafka`. `live` is for who waits at the API.
"""
