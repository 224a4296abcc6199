"""The stress test of a given unlearned model: the suite that `resurgence stress` runs, and its demonstration."""
