"""Tokens written by the library whose format it is, in its own environment: no import from this project.

    python doors_peer.py (megatron|mosaic|datasets) DOCUMENTS.npz FOLDER

DOCUMENTS.npz holds `values` and `offsets`: document d is values[offsets[d]:offsets[d + 1]], none is empty.
Prints JSON: a list of what was written, {name, path, column (null: by default)}.
"""

import json
import sys
import types
from pathlib import Path

import numpy as np


def megatron(documents, folder):
    """Megatron-Core's IndexedDatasetBuilder: two widths, and documents of several sequences."""
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    for name, dtype, n_parts in (
        ("uint16", np.uint16, 1),
        ("int32", np.int32, 1),
        ("several sequences a document", np.int32, 3),
    ):
        prefix = str(folder / name.replace(" ", "_"))
        builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=dtype)
        for document in documents:
            parts = [part for part in np.array_split(document, n_parts) if part.size]
            builder.add_document(np.concatenate(parts).tolist(), [len(part) for part in parts])
        builder.finalize(f"{prefix}.idx")
        yield name, f"{prefix}.bin", None


def mosaic(documents, folder):
    """MosaicML's MDSWriter: each encoding of tokens that LLM Foundry writes or reads, shards of 64 kB."""
    sys.modules["streaming.vision"] = types.ModuleType(
        "streaming.vision"
    )  # wants the very torchvision of torch
    from streaming import MDSWriter

    for encoding, made, compression in (
        ("ndarray:uint16", lambda tokens: tokens.astype(np.uint16), None),
        ("ndarray:int32", lambda tokens: tokens.astype(np.int32), None),
        ("ndarray", lambda tokens: tokens.astype(np.int64), None),
        ("bytes", lambda tokens: tokens.astype(np.int64).tobytes(), None),
        ("ndarray:uint16", lambda tokens: tokens.astype(np.uint16), "zstd:3"),
        ("ndarray:uint16", lambda tokens: tokens.astype(np.uint16), "gz"),
    ):
        name = f"{encoding} {compression or 'not compressed'}"
        target = folder / name.replace(" ", "_").replace(":", "_")
        columns = {"id": "int", "tokens": encoding}
        options = {"compression": compression, "hashes": ["xxh64"], "size_limit": 1 << 16}
        with MDSWriter(out=str(target), columns=columns, **options) as out:
            for number, document in enumerate(documents):
                out.write({"id": number, "tokens": made(document)})
        yield name, target, None


def datasets(documents, folder):
    """Hugging Face datasets: a Parquet file, a dataset on disk, and another column and width."""
    from datasets import Dataset, Features, List, Value

    plain = Dataset.from_dict({"input_ids": [document.tolist() for document in documents]})
    plain.to_parquet(str(folder / "plain.parquet"))
    yield "to_parquet", folder / "plain.parquet", None
    plain.save_to_disk(str(folder / "saved"), max_shard_size="100KB")
    yield "save_to_disk", folder / "saved", None
    typed = Dataset.from_dict(
        {"text": ["x"] * len(documents), "codes": [document.tolist() for document in documents]},
        features=Features({"text": Value("string"), "codes": List(Value("uint16"))}),
    )
    typed.to_parquet(str(folder / "typed.parquet"), batch_size=100)
    yield "uint16, another column", folder / "typed.parquet", "codes"


def main():
    given, folder = np.load(sys.argv[2]), Path(sys.argv[3])
    documents = np.split(given["values"], given["offsets"][1:-1])
    write = {"megatron": megatron, "mosaic": mosaic, "datasets": datasets}[sys.argv[1]]
    written = [
        {"name": name, "path": str(path), "column": column} for name, path, column in write(documents, folder)
    ]
    print(json.dumps(written))


if __name__ == "__main__":
    main()
