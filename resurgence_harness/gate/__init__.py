"""The release gate: judges a candidate against a policy file, and writes all reports."""
