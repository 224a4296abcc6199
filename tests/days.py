"""A day on which acceptances of these tests end: never yet, and not too far ahead to be read."""

from datetime import timedelta

from resurgence_harness.statistics.policies import day_in_utc

TO_COME = str(day_in_utc() + timedelta(days=400))
"""YYYY-MM-DD."""
