"""Kernels of the method: pure `jax.numpy`, explicit keyword arguments."""
