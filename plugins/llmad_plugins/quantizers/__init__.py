"""Quantizers, one file a library."""
