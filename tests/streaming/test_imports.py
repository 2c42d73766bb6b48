import subprocess
import sys

import pytest

HEAVY = ("ray", "pydantic", "torch", "pandas")


@pytest.mark.parametrize(
    "statement",
    [
        "import cuvee.streaming",
        "from cuvee.streaming import StreamingLoader, TokenStore, Batch",
        "from cuvee.streaming.shards import write_token_shard",
    ],
)
def test_importing_the_loader_imports_nothing_heavy(statement: str) -> None:
    script = f"import sys; {statement}; print(*sorted(set(sys.modules) & set({HEAVY!r})))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


def test_local_shards_need_nothing_that_windows_lacks(write_stream) -> None:
    script = """
import os, sys, pytest
import torch
sys.modules["fcntl"] = None
del os.register_at_fork, os.memfd_create
from cuvee.streaming import StreamingLoader
options = {"sequence_length": 4, "global_batch": 2}
loader = StreamingLoader({"web": sys.argv[1]}, {"web": 1.0}, **options)
assert next(loader).input_ids.shape == (2, 4)
with pytest.raises(OSError, match="no file locks .*; copy the shards to a local folder"):
    StreamingLoader({"web": "file://" + sys.argv[1]}, {"web": 1.0}, cache=sys.argv[1] + "-cache", **options)
"""
    arguments = [sys.executable, "-c", script, str(write_stream("web", 100))]
    result = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    import cuvee.streaming

    with pytest.raises(AttributeError, match=r"module 'cuvee\.streaming' has no attribute 'Loader'"):
        _ = cuvee.streaming.Loader
