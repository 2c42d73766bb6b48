"""The streaming loader: token shards -> plan -> batches. Imports neither Ray nor pydantic."""
