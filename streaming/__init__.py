"""The streaming loader: token shards -> plan -> batches. Imports neither Ray nor pydantic."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .batch import Batch
    from .decomposition import Vsl
    from .loader import StreamingLoader
    from .shards import TokenStore

__all__ = ["Batch", "StreamingLoader", "TokenStore", "Vsl"]


def __getattr__(name: str) -> Any:
    """Import the public names on first use: operators/tokenize writes shards without a loader's imports."""
    if name == "TokenStore":
        from .shards import TokenStore

        return TokenStore
    if name == "Batch":
        from .batch import Batch

        return Batch
    if name == "Vsl":
        from .decomposition import Vsl

        return Vsl
    if name == "StreamingLoader":
        from .loader import StreamingLoader

        return StreamingLoader
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
