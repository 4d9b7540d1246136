"""gunicorn's gevent worker with four additions.

balancing.py: new connections go to the worker that has the fewest. gunicorn's own worker accepts one
connection in each round of its loop. That keeps 64 connections even, but 3 s after 1,000 clients had
connected at once, two workers had accepted 350 to 450 of them, and the slowest first answer took 5.5 s;
here all were accepted, evenly (476 to 524), and the slowest took 1.3 to 2.2 s. Accepting many in each round
without counting gave one worker all 64 of 64 connections. `reuse_port` changes nothing: gunicorn's workers
share the one listener of its master process. `docs/decisions/gevent.md` has the measurement.

connection.py: a client that sends or reads too slowly is disconnected as one that has gone (gunicorn has no
timeout here, and would log an error), and the head and body of a response leave in one segment instead of
two.

worker.py: graceful shutdown. Queued connections are accepted, responses get `Connection: close`, idle
connections are closed without cutting off a request that has arrived. An unread request body is skipped, so
that it is not taken for the next request.

error_responses.py: a request that is not HTTP is answered with a problem document and counted, as others
are.

gunicorn's master process imports this before gevent has patched the standard library: nothing here may
import Django or psycopg at its top.
"""
