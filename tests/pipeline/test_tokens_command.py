from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cuvee.pipeline.cli import main
from cuvee.streaming import TokenStore
from cuvee.streaming.shards import domain_folder, write_manifest, write_token_shard


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    """A run's tokens/: two domains, one with a held-out split."""
    for domain, splits in (("code", ["train"]), ("web", ["train", "validation"])):
        folder = domain_folder(tmp_path, domain)
        for split in splits:
            values, offsets = np.array([40, 41, 42, 1, 43, 1]), np.array([0, 4, 4, 6])
            path = folder / f"{split}-00000.arrow"
            write_token_shard(path, values, offsets, np.arange(3, dtype=np.uint64), "uint16")
        write_manifest(folder, domain=domain, vocab_size=50, tokenizer_hash="t", eos_id=1)
    return tmp_path


def test_inspect_lists_every_split_of_every_domain(tokens: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tokens", "inspect", str(tokens)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    expected = ["1", "3", "6", "6", "4", "4", "uint16", "50"]
    assert [row[:2] for row in rows] == [["code", "train"], ["web", "train"], ["web", "validation"]]
    assert all(row[2:] == expected for row in rows)


def test_verify_names_every_corrupt_shard_and_exits_with_3(
    tokens: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tokens", "verify", str(tokens)]) == 0
    assert "3 shards match their checksums" in capsys.readouterr().out
    for domain in ("code", "web"):
        shard = tokens / domain / "train-00000.arrow"
        shard.write_bytes(shard.read_bytes().replace(np.array([40, 41], np.uint16).tobytes(), bytes(4)))
    assert main(["tokens", "verify", str(tokens)]) == 3
    error = capsys.readouterr().err
    assert error.count("its contents do not match its checksum; write the shard again") == 2
    assert main(["tokens", "verify", str(tokens / "code")]) == 3
    assert main(["tokens", "verify", str(tokens / "web" / "nowhere")]) == 3
    assert "no manifest.json in it or in a folder of it" in capsys.readouterr().err


def test_build_and_merge_make_shards_of_a_parquet_column(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pq.write_table(pa.table({"input_ids": [[5, 1], [6, 7], []]}), tmp_path / "a.parquet")
    tokenizer = ["--vocab-size", "50", "--eos-id", "1", "--tokenizer-name", "mine"]
    build = ["tokens", "build", str(tmp_path / "a.parquet"), "--to", str(tmp_path / "code")]
    assert main([*build, *tokenizer]) == 0
    said = capsys.readouterr().out
    assert "3 documents, 6 tokens" in said
    assert "2 documents lacked the end-of-sequence token 1 and got it" in said
    assert main([*build[:-1], str(tmp_path / "packed"), *tokenizer, "--cut-after-eos"]) == 0
    packed = TokenStore(tmp_path / "packed")
    assert packed.read(0, packed.n_tokens).tolist() == [5, 1, 6, 7, 1]
    sources = [str(tmp_path / name) for name in ("code", "packed")]
    assert main(["tokens", "merge", *sources, "--to", str(tmp_path / "both"), "--domain", "code"]) == 0
    merged = TokenStore(tmp_path / "both")
    assert (merged.domain, merged.n_docs, merged.n_tokens) == ("code", 5, 11)
    assert main(["tokens", "verify", str(tmp_path / "both")]) == 0


def test_what_build_lacks_or_cannot_read_is_said_in_one_line(
    tokens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build = ["tokens", "build", str(tmp_path / "nowhere"), "--to", str(tmp_path / "new")]
    tokenizer = ["--vocab-size", "50", "--eos-id", "1", "--tokenizer-name", "mine"]
    assert main(build) == 2
    assert "which tokenizer made these tokens?" in capsys.readouterr().err
    assert main([*build, *tokenizer]) == 3
    assert "nowhere: no tokens that can be read" in capsys.readouterr().err
    assert main([*build, *tokenizer, "--validation-fraction", "1.5"]) == 2
    assert main(["tokens", "merge", str(tokens / "web"), "--to", str(tokens / "code")]) == 3
    assert "holds token shards already" in capsys.readouterr().err
