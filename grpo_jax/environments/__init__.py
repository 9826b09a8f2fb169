"""Tools that a policy asks while it writes: one protocol, a search and a calculator."""
