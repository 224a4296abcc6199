"""Half precision on a GPU: kernels, and the forward and backward passes built of them."""
