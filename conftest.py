"""Which fixture modules the suites load; nothing else."""

pytest_plugins = ("fixtures.models", "fixtures.judges", "fixtures.evidence")
