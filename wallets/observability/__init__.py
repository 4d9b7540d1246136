"""Logs, metrics, traces and error reports, for operators."""
