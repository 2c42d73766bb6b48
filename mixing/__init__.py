"""Mixers: a table of (weights, losses) in, better weights out."""
