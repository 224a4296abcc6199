"""Experiments on the product itself and on the paper's questions, as runnable selections."""
