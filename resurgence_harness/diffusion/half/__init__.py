"""Draws images in float16: the same model and the same sampler, several times faster on a GPU.

kernels.py     Triton kernels of norms, sums and GEGLU          layers.py      activations, prepared weights
unet.py        f_θ                                              decoder.py     D
drawing.py     which way a device and a model allow, and the weights that are kept between calls
"""
