"""The baseline: the same API as it is usually written, one locked row and one transaction a request.

It works on the service's tables and is served for the benchmark only.
"""
