"""Rows, tokens and batches, on the host."""
