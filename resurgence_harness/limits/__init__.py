"""Limits and acceptances: the reviewed files of suites and gates, read, and bound to weights and settings."""
