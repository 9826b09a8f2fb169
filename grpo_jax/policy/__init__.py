"""The policy: parameters, one forward pass, one cached step, and their shardings."""
