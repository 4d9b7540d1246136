"""The naive service: the same API, with one locked row and one transaction for each request.

It uses the service's tables, and runs only in the benchmark.
"""
