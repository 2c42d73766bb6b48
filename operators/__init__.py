"""Curation operators: document tables in, document tables out."""
