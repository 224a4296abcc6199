"""The suite that `resurgence stress`, `rh.stress` and `rh.examine` run: cells of any task, without a suite's folder."""
