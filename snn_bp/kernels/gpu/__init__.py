"""The Triton kernels of the GPU."""
