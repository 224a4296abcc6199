"""The embedded default: a small Stable Diffusion of our own, the world it was trained on, and its training.

It is to this field what the fruit fly is to biology: the same organs, a short life. `weights.directory()` is a model
in diffusers' layout; `world` draws what it was taught; `training` makes it from nothing.
"""
