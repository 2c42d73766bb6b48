"""Proxy models: tiny language models whose losses stand in for the real one's."""
