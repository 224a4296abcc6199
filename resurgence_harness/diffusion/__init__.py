"""Stable Diffusion as components: loading, the operations that every method uses, and choices of trained parameters."""
