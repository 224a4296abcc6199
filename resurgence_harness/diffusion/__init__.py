"""Stable Diffusion as parts: loading, the few moves every method is written in, and which parameters may move."""
