"""The embedded default: a small Stable Diffusion model, the rendered world it was trained on, and its training.

It has the same components as a real Stable Diffusion at a size that runs on a CPU. `weights.directory()` is a model in
diffusers' layout; `world` renders its training pictures; `training` trains it from scratch.
"""
