"""gunicorn's gevent worker with four additions.

balancing.py: new connections go to the worker that has the fewest. gunicorn's own worker accepts one
connection in each round of its loop. That keeps 64 connections even, but 3 s after 1,000 clients had
connected at once, two workers had accepted 350 to 450 of them, and the slowest first response took 5.5 s;
with this module all were accepted, evenly (476 to 524), and the slowest took 1.3 to 2.2 s. Accepting many in
each round without counting gave one worker all 64 of 64 connections. `reuse_port` changes nothing: gunicorn's
workers share the one listener of its master process. `docs/decisions/gevent.md` has the measurement.

connection.py: a client that sends or reads too slowly is treated as one that has closed the connection
(gunicorn has no timeout here, and would log an error), and the head and body of a response are sent in one
segment instead of two.

worker.py: graceful shutdown. The worker accepts queued connections, sends `Connection: close`, and closes
idle connections without losing a request that has arrived. It skips an unread request body, which would be
parsed as the next request.

error_responses.py: a request that is not HTTP gets a problem document and is counted, as other requests are.

gunicorn's master process imports this package before gevent has patched the standard library: no module here
may import Django or psycopg at its top.
"""
