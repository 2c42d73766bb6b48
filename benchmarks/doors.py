"""Whether `cuvee tokens build` reads what other libraries wrote: Megatron-Core, MosaicML Streaming, datasets.

    python -m benchmarks.doors [--json] [--libraries megatron,...]

Each library writes the same documents in an environment of its own, made below build/peers
(benchmarks/doors_peer.py); the command reads them, and the shards' documents are compared with those
written, token by token. The last line with --json is one JSON object: `equal`, by library and what it
wrote; `absent`, libraries that could not be installed or failed, with the reason.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.loader_peers import PACKAGES, ROOT, environment, reason
from cuvee.streaming import TokenStore

EOS = 0
LIBRARIES = {
    "megatron": ["megatron-core>=0.16", "torch"],
    "mosaic": PACKAGES["mosaic"],
    "datasets": ["datasets>=4"],
}


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--libraries", default=",".join(LIBRARIES), help="some of %(default)s")
    parser.add_argument("--json", action="store_true", help="end with one JSON line")
    arguments = parser.parse_args()
    equal: dict[str, dict[str, bool]] = {}
    absent: dict[str, str] = {}
    documents = random_documents()
    for library in arguments.libraries.split(","):
        with tempfile.TemporaryDirectory() as scratch:
            try:
                equal[library] = {
                    one["name"]: built_equal(one, documents, Path(scratch) / f"tokens-{k}")
                    for k, one in enumerate(written_by(library, documents, Path(scratch)))
                }
            except (subprocess.SubprocessError, OSError) as error:
                absent[library] = reason(error)
        print(f"{library}: {equal.get(library) or absent[library]}", flush=True)
    if arguments.json:
        print(json.dumps({"equal": equal, "absent": absent}))


def random_documents(n_docs: int = 500) -> list[NDArray[np.int64]]:
    """Of 1 to 2,000 tokens below 50,000, each ended: some 0.4 M tokens in all."""
    random = np.random.default_rng(0)
    lengths = np.exp(random.uniform(0, np.log(2000), n_docs)).astype(int)
    return [np.append(random.integers(1, 50_000, n - 1), EOS) for n in lengths]


def written_by(library: str, documents: list[NDArray[np.int64]], folder: Path) -> list[dict[str, Any]]:
    """What the library wrote of these documents into `folder`."""
    python = environment(ROOT / "build" / "peers" / library, LIBRARIES[library])
    offsets = np.cumsum([0, *map(len, documents)])
    np.savez(folder / "documents.npz", values=np.concatenate(documents), offsets=offsets)
    script = ROOT / "benchmarks" / "doors_peer.py"
    done = subprocess.run(
        [python, script, library, folder / "documents.npz", folder],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    written: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return written


def built_equal(written: dict[str, Any], documents: list[NDArray[np.int64]], target: Path) -> bool:
    """Whether the token shards that the command makes hold these documents in this order."""
    command = [Path(sys.executable).with_name("cuvee"), "tokens", "build", written["path"], "--to", target]
    command += ["--vocab-size", "50000", "--eos-id", str(EOS), "--tokenizer-name", "random"]
    if written["column"] is not None:
        command += ["--column", written["column"]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{written['name']}: {done.stderr.strip()}", file=sys.stderr)
        return False
    store = TokenStore(target)
    store.verify()
    found = [
        part[start:end]
        for part, offsets in zip(store.pieces, store.offsets, strict=True)
        for start, end in pairwise(offsets.tolist())
    ]
    return len(found) == len(documents) and all(map(np.array_equal, found, documents))


if __name__ == "__main__":
    main()
