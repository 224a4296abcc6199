"""What would be enough and what was accepted: the reviewed files of suites and gates, read and bound."""
