"""The paper's experiments, and planted regressions that test the harness itself, as runnable selections."""
