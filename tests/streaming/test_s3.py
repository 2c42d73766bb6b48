"""Shards in S3: moto's server on this machine answers s3fs over HTTP, as Amazon's would."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from cuvee.streaming import StreamingLoader
from cuvee.streaming.batch import FIELDS
from cuvee.streaming.cache import Cache

server_of_moto = pytest.importorskip("moto.server", reason="moto is not installed: pip install moto[server]")
s3fs = pytest.importorskip("s3fs")
# Of moto and botocore: they speak of their own future.
pytestmark = pytest.mark.filterwarnings("ignore")
WEIGHTS = {"code": 0.3, "web": 0.7}


@pytest.fixture
def bucket(monkeypatch) -> Iterator[s3fs.S3FileSystem]:
    """An empty bucket of a server that every s3:// of this test goes to, worker processes included."""
    server = server_of_moto.ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    reset = Request(f"http://{host}:{port}/moto-api/reset", method="POST")
    urlopen(reset).close()  # what it holds is the process's, not the server's
    s3fs.S3FileSystem.clear_instance_cache()
    files = s3fs.S3FileSystem()
    files.mkdir("bucket")
    yield files
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.fixture
def sources(write_stream) -> dict[str, Path]:
    return {name: write_stream(name, 3000, first=10_000 * k, n_shards=4) for k, name in enumerate(WEIGHTS)}


@pytest.fixture
def uris(bucket, sources) -> dict[str, str]:
    for name, folder in sources.items():
        bucket.put(str(folder), f"bucket/tokens/{name}", recursive=True)
    return {name: f"s3://bucket/tokens/{name}" for name in sources}


def loader(sources, **options) -> StreamingLoader:
    return StreamingLoader(
        sources, WEIGHTS, **{"sequence_length": 16, "global_batch": 8, "emit": FIELDS, **options}
    )


def rows(batches: StreamingLoader, n: int) -> list[tuple[list[list[int]], list[list[int]]]]:
    return [(batch.input_ids.tolist(), batch.labels.tolist()) for batch in itertools.islice(batches, n)]


@pytest.mark.parametrize("packing", ["concat", "best_fit"])
@pytest.mark.parametrize("options", [{"prefetch": 0}, {"workers": 1, "prefetch": 2}], ids=str)
def test_batches_of_shards_in_s3_are_those_of_local_ones(sources, uris, tmp_path, packing, options) -> None:
    running = loader(uris, packing=packing, cache=tmp_path / "cache", **options)
    assert rows(running, 30) == rows(loader(sources, packing=packing), 30)
    running.close()


def test_a_run_is_resumed_from_s3_with_a_small_cache_and_stays_exact(sources, uris, tmp_path) -> None:
    undisturbed = rows(loader(sources), 20)
    largest = max(path.stat().st_size for path in sources["web"].glob("*.arrow"))
    options = {"cache": tmp_path / "cache", "cache_bytes": 9 * largest}
    running = loader(uris, **options)
    assert rows(running, 7) == undisturbed[:7]
    resumed = loader(uris, **options)
    resumed.load_state_dict(json.loads(json.dumps(running.state_dict())))
    assert rows(resumed, 13) == undisturbed[7:]
    cache = Cache(tmp_path / "cache")
    with cache._locked():  # so that threads that still fetch make no room meanwhile
        assert sum(status.st_size for _, status in cache._files()) <= options["cache_bytes"]


def test_what_is_not_in_s3_is_named(uris, bucket, tmp_path) -> None:
    with pytest.raises(ValueError, match=r"s3://bucket/tokens/nowhere: no manifest\.json there"):
        loader({**uris, "web": "s3://bucket/tokens/nowhere"}, cache=tmp_path)
    (shard,) = [path for path in bucket.ls("bucket/tokens/web") if path.endswith("00002.arrow")]
    bucket.rm(shard)
    with pytest.raises(
        FileNotFoundError, match=r"s3://bucket/tokens/web/train-00002\.arrow: not there, though"
    ):
        rows(loader(uris, cache=tmp_path, max_epochs=1, global_batch=2), 10**6)
