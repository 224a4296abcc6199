"""Draws images and trains in float16: the same model, sampler and losses, several times faster on a GPU.

kernels.py     Triton kernels of norms, sums and GEGLU          layers.py      activations, prepared weights
unet.py        f_θ                                              decoder.py     D
drawing.py     which way a device and a model allow, and the weights that are kept between calls

training.py             passes whose gradients are taken, in CUDA graphs      training_forward.py    f_θ, differentiable
training_kernels.py     the kernels with their gradients
"""
