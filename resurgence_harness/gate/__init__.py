"""The release gate: which limits apply to a cell, and which results were accepted."""
