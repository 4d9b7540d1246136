"""The public contract in JSON and CSV: what requests contain, and how the service shows its objects.

The API, the events and the pages use it. It knows the ledger's values, but no view and no delivery.
"""
