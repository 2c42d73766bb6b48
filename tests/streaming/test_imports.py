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


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    import cuvee.streaming

    with pytest.raises(AttributeError, match=r"module 'cuvee\.streaming' has no attribute 'Loader'"):
        _ = cuvee.streaming.Loader
