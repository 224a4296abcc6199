"""A safety regression test harness for concept resurgence in unlearned and fine-tuned Stable Diffusion models."""

__version__ = "0.1.0"
