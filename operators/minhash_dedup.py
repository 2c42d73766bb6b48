"""Removal of documents that are nearly the same as another one that is kept."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ..kernels.hashing import hash_ranges
from ..kernels.minhash import band_keys, permutations, signatures
from ..kernels.normalise import fold_whitespace_and_case
from ..kernels.shingle_sets import shingle_sets
from ..kernels.shingles import character_hashes, shingle_hashes, word_hashes
from ..kernels.survivors import survivors
from .bands import Bands, choose_bands, min_agreement
from .base import ROW, Scores, refusal, with_summary
from .duplicates import Duplicates, duplicate_columns, positions
from .files import FilePath
from .priority import check_known
from .text_column import integers, one_chunk, text_buffers

SLICE_BYTES = 1 << 20
"""Text that is signed at once, so that the words and shingles of the next use the same memory again."""


class MinHashDedup(Duplicates):
    """Remove documents whose n-grams are nearly those of one that is kept.

    Documents are candidates when all values of one band of their MinHash signatures agree, which for Jaccard
    similarity s has probability ``1 - (1 - s**rows_per_band)**n_bands``. The operator walks by priority
    (`keep`): a document leaves only if a candidate of it that stays is verified to be at `threshold` or more.
    That survivor's id and the similarity are written beside it; nothing leaves for something that is itself
    removed. `cluster_size` is how many documents a survivor stands for, itself included: the weights for
    rehydration. Over the kept documents they sum to the number of all.

    `verify: exact` compares sets of shingles; signatures that agree too little for the threshold save that
    work, wrongly for 1 pair in 30,000 at most. `signature` trusts the signatures (standard deviation 0.04 at
    0.8). `none` removes all but one of each group of candidates of candidates, as other tools do: faster, and
    wrong for documents that are linked by others.

    Without `n_bands` and `rows_per_band` the bands are those with the least expected error for the threshold;
    for 0.8 that is 18 bands of 6: 99.6 % of the pairs at 0.8 are candidates, 99.98 % of those at 0.85.
    Words are in lowercase, without punctuation; each letter of a script without spaces is a word. Characters
    are those of the text in lowercase, each run of white space as one. A document of fewer than `ngram` of
    them has no signature and always stays.

    Source: Broder 1997; n-grams of Penedo et al. 2024, "The FineWeb Datasets", section 3.4. It departs in the
    words (no tokenizer of the language), in keeping digits and accents as they are, in permuting 32-bit
    hashes as datasketch 2 does, and in verifying. Cost: one pass over the text, and a second one over the
    documents that have candidates; 16 bytes per document and band to exchange.
    """

    name = "minhash_dedup"
    version = 3
    writes = (*duplicate_columns("minhash_dedup"), "minhash_dedup.survivor", "minhash_dedup.similarity")

    unit: Literal["words", "characters"] = Field("words", description="what n-grams are made of")
    ngram: int = Field(5, ge=1, description="words or characters in a shingle (of characters, 20 or more)")
    threshold: float = Field(
        0.8, gt=0, le=1, description="Jaccard similarity from which a document may leave"
    )
    verify: Literal["exact", "signature", "none"] = Field(
        "exact", description="how a candidate is held to the threshold before it may leave"
    )
    n_perm: int = Field(112, ge=1, le=1024, description="values of a signature, at most, if bands are chosen")
    n_bands: int | None = Field(
        None, ge=1, le=1024, description="bands of a signature; more find less similar documents"
    )
    rows_per_band: int | None = Field(
        None, ge=1, le=1024, description="values that must agree in a band; more find fewer"
    )
    false_negative_weight: float = Field(
        0.995, gt=0, lt=1, description="what a missed pair weighs, and a false candidate 1 less it, if chosen"
    )
    against: tuple[FilePath, ...] = Field(
        (),
        description="run directories of earlier runs with the same signatures, oldest first; with what they "
        "ran against themselves, what they kept stays, and what is like it leaves here",
    )
    seed: int = Field(1, ge=0, lt=1 << 32, description="draws the permutations")

    @model_validator(mode="after")
    def _parameters_fit_together(self) -> Self:
        given = self.model_fields_set
        if (self.n_bands is None) != (self.rows_per_band is None):
            raise refusal("n_bands and rows_per_band go together: give both, or none to have them chosen")
        if self.n_bands is not None and given & {"n_perm", "false_negative_weight"}:
            raise refusal(
                "n_perm and false_negative_weight choose the bands that n_bands and rows_per_band name; "
                "leave out one of the two pairs"
            )
        if self.verify == "none" and self.against:
            raise refusal("against needs verified survivors: verify: exact, or signature")
        return self

    def identity(self) -> dict[str, Any]:
        """The parameters without the places of earlier runs, which the plan describes by their hashes."""
        return self.model_dump(mode="json", exclude={"against"})

    @property
    def bands(self) -> Bands:
        """The bands of a signature, as given or as chosen."""
        if self.n_bands is not None and self.rows_per_band is not None:
            return Bands(self.n_bands, self.rows_per_band)
        return choose_bands(self.threshold, self.n_perm, self.false_negative_weight)

    @property
    def scheme(self) -> dict[str, str | int]:
        """What two runs must share for their signatures to be comparable."""
        return {"unit": self.unit, "ngram": self.ngram, "seed": self.seed, **self.bands._asdict()}

    @property
    def second_key(self) -> str | None:
        """See `Fit.second_key`: documents that can be compared share a component."""
        return None if self.verify == "none" else "component"

    @property
    def second_reads(self) -> tuple[str, ...]:
        """See `Fit.second_reads`."""
        return ("id", "text", *([self.by] if self.by is not None else []))

    @property
    def earlier_runs(self) -> tuple[str, ...]:
        """See `Fit.earlier_runs`."""
        return self.against

    def observe(self, table: pa.Table) -> pa.Table:
        """One row per document and band: `key` uint64, `ROW`, and `priority` if that is needed here."""
        columns = {ROW: integers(table[ROW])}
        if self.verify == "none":
            columns |= self._priorities(table, text_buffers(table["text"])[1])
        keys, has_key = map(np.concatenate, zip(*map(self._keyed, _slices(table)), strict=True))
        per_band = {name: np.repeat(values[has_key], keys.shape[1]) for name, values in columns.items()}
        return pa.table({"key": keys[has_key].ravel(), **per_band})

    def finish(self, partial: pa.Table) -> pa.Table:
        """The forest itself: who has candidates, and in which component; without `verify` the state."""
        return super().finish(partial) if self.second_key is None else partial

    def observe_again(self, table: pa.Table, found: pa.Table) -> pa.Table:
        """One row per document that has candidates: whatever is needed to compare it with them."""
        known, position = positions(integers(found["node"]), integers(table[ROW]))
        table, position = table.filter(pa.array(known)), position[known]
        signed = self._signed(table)
        columns = {
            "component": integers(found["parent"])[position].astype(np.uint64),
            ROW: integers(table[ROW]),
            "priority": np.zeros(len(table), np.int64),
            **self._priorities(table, signed.text_offsets),
            "id": one_chunk(table["id"].cast(pa.string())),
        }
        keys = band_keys(signed.signatures, self.bands.n_bands)
        sketch = signed.signatures.astype(np.uint8)
        shingles, offsets = self._compared(signed, keys)
        content = hash_ranges(shingles.view(np.uint8), offsets * shingles.itemsize)
        # Of a licence's hundred thousand copies in a shard only the first carries what is compared.
        _, first, content_of = np.unique(content, return_index=True, return_inverse=True)
        carries = np.arange(len(table)) == first[content_of]
        columns |= {
            "content": content,
            "carries": carries,
            "keys": _lists(keys.ravel(), np.arange(len(keys) + 1) * keys.shape[1], carries),
            "sketch": _lists(sketch.ravel(), np.arange(len(keys) + 1) * sketch.shape[1], carries),
        }
        if self.verify == "exact":
            columns["shingles"] = _lists(shingles, offsets, carries)
        return pa.table(columns)

    def combine_again(self, observations: pa.Table) -> pa.Table:
        """The verdict on each document of some components, with what `scores` tells of it.

        Documents of earlier runs are settled: they survive whatever their priority, and are left out here.
        """
        rows, priority = integers(observations[ROW]), integers(observations["priority"])
        is_settled = rows < 0
        order = np.lexsort((rows, ~priority, ~is_settled))
        survivor, similarity = self._walked(observations, order, is_settled[order])
        cluster_size = np.bincount(survivor, minlength=len(survivor))
        # Documents stand by priority, so a stable sort by survivor counts ranks, the survivor's own being 0.
        by_survivor = np.argsort(survivor, kind="stable")
        start = np.concatenate([[0], np.cumsum(cluster_size)])
        rank = np.empty_like(by_survivor)
        rank[by_survivor] = np.arange(len(rank)) - start[survivor[by_survivor]]
        ids = one_chunk(observations["id"]).take(pa.array(order))
        is_survivor = survivor == np.arange(len(survivor))
        return pa.table(
            {
                "row": rows[order],
                "keeper": rows[order][survivor],
                "cluster_size": cluster_size[survivor],
                "rank": rank,
                "survivor": ids.take(pa.array(survivor, mask=is_survivor)),
                "similarity": pa.array(similarity, mask=is_survivor),
                "priority": priority[order],
            }
        ).filter(pa.array(~is_settled[order]))

    def _walked(
        self, observations: pa.Table, order: NDArray[np.int64], is_settled: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """`survivors` of all documents in `order`, of which only the first of equal ones is walked.

        Documents of equal content share all buckets. If the first survives, it is the survivor of the others;
        if it leaves, they leave for the same one, as survivors that come after it change no first match.
        """
        contents, content_of = np.unique(integers(observations["content"])[order], return_inverse=True)
        first = np.unique(content_of, return_index=True)[1]
        is_walked = is_settled.copy()
        is_walked[first] = True
        walked = np.flatnonzero(is_walked)
        speaker = np.where(is_walked, np.arange(len(order)), first[content_of])
        carriers = observations.filter(observations["carries"])
        carriers = carriers.take(pa.array(np.unique(integers(carriers["content"]), return_index=True)[1]))
        assert len(carriers) == len(contents), "each content is carried once in each shard that has it"
        n_bands, n_rows = self.bands
        keys = _matrix(carriers["keys"], n_bands)
        sketches = _matrix(carriers["sketch"], n_bands * n_rows)
        sets, set_offsets = np.empty(0, np.uint32), np.zeros(1, np.int64)
        if self.verify == "exact":
            lists = one_chunk(carriers["shingles"])
            sets = lists.flatten().to_numpy()
            set_offsets = np.append(0, np.cumsum(lists.value_lengths().to_numpy())).astype(np.int64)
        which = content_of[walked]
        survivor, similarity = survivors(
            _buckets(keys[which]), sketches[which], sets, set_offsets, which, is_settled[walked],
            self.threshold, min_agreement(self.threshold, sketches.shape[1]),
        )  # fmt: skip
        place = (np.cumsum(is_walked) - 1)[speaker]
        return walked[survivor[place]], similarity[place]

    def finish_again(self, found: pa.Table, partials: Sequence[pa.Table]) -> pa.Table:
        """The verdicts by `row` of documents that are not alone, and how many the plain closure would remove.

        Raises:
            UnsuitableDataError: no document has a value in the column that `by` names.
        """
        verdicts = pa.concat_tables(partials)
        check_known(integers(verdicts["priority"]), self.by, f"{self.name}.by")
        n_new = int((integers(found["node"]) >= 0).sum())
        roots, sizes = np.unique(integers(found["parent"]), return_counts=True)
        # The closure keeps one document of each component, or none where an earlier run's is in it.
        n_closed = n_new - int((roots >= 0).sum())
        n_removed = int((integers(verdicts["rank"]) > 0).sum())
        state = verdicts.drop_columns(["priority"]).filter(pc.greater(verdicts["cluster_size"], 1))
        return with_summary(
            state.sort_by("row").combine_chunks(),
            n_with_candidates=n_new,
            n_removed=n_removed,
            n_more_by_closure=n_closed - n_removed,
            n_in_largest_component=int(sizes.max(initial=0)),
        )

    def scores(self, table: pa.Table, state: pa.Table) -> Scores:
        """The columns of `writes`; `survivor` and `similarity` are null for what stays or is unverified."""
        scores = dict(super().scores(table, state))
        known, position = positions(integers(state["row"]), integers(table[ROW]))
        where = pa.array(position, mask=~known)
        for name, kind in (("survivor", pa.string()), ("similarity", pa.float64())):
            is_verified = name in state.column_names
            values = one_chunk(state[name]).take(where) if is_verified else pa.nulls(len(table), kind)
            scores[f"{self.name}.{name}"] = values
        return scores

    def sign(self, table: pa.Table) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
        """Signatures, (n_docs, n_perm), and whether each document has one, (n_docs,)."""
        signed = self._signed(table)
        return signed.signatures, np.diff(signed.offsets) > 0

    def _keyed(self, table: pa.Table) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
        """Band keys, (n_docs, n_bands), and whether each document has any, (n_docs,)."""
        signed = self._signed(table)
        return band_keys(signed.signatures, self.bands.n_bands), np.diff(signed.offsets) > 0

    def _signed(self, table: pa.Table) -> "_Signed":
        data, offsets = text_buffers(table["text"])
        if self.unit == "characters":
            units = character_hashes(*fold_whitespace_and_case(data, offsets))
        else:
            units = word_hashes(data, offsets)
        shingles, shingle_offsets = shingle_hashes(*units, self.ngram)
        drawn = permutations(self.bands.n_bands * self.bands.rows_per_band, self.seed)
        return _Signed(offsets, shingles, shingle_offsets, signatures(shingles, shingle_offsets, drawn))

    def _compared(
        self, signed: "_Signed", keys: NDArray[np.uint64]
    ) -> tuple[NDArray[np.uint32] | NDArray[np.uint64], NDArray[np.int64]]:
        """What two documents are equal in: their distinct shingles, or only their band keys; and offsets."""
        if self.verify == "exact":
            return shingle_sets(signed.shingles, signed.offsets)
        return keys.ravel(), np.arange(len(keys) + 1) * keys.shape[1]


class _Signed(NamedTuple):
    """Documents, signed."""

    text_offsets: NDArray[np.int64]  # (n_docs + 1,)
    shingles: NDArray[np.uint32]  # (n_shingles,)
    offsets: NDArray[np.int64]  # (n_docs + 1,), of shingles
    signatures: NDArray[np.uint32]  # (n_docs, n_perm)


def _slices(table: pa.Table) -> list[pa.Table]:
    """The rows of `table` in slices of about `SLICE_BYTES` of text, at least one."""
    _, offsets = text_buffers(table["text"])
    slice_of = (offsets[:-1] - offsets[0]) // SLICE_BYTES
    cuts = [0, *(np.flatnonzero(np.diff(slice_of)) + 1).tolist(), len(table)]
    return [table.slice(start, stop - start) for start, stop in pairwise(cuts)]


def _matrix(column: pa.ChunkedArray, width: int) -> NDArray[Any]:
    """Lists of `width` values as rows."""
    return one_chunk(column).flatten().to_numpy().reshape(-1, width)  # type: ignore[no-any-return]


def _lists(values: NDArray[Any], offsets: NDArray[np.int64], carries: NDArray[np.bool_]) -> pa.Array:
    """Lists of which only those that `carries` marks hold their values."""
    lists = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values))
    empty = pa.LargeListArray.from_arrays(pa.array([0, 0]), pa.array(values[:0]))
    choice = np.where(carries, np.arange(len(carries)), len(carries))
    return pa.concat_arrays([lists, empty]).take(pa.array(choice))


def _buckets(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Keys as numbers from 0, -1 for a key of one document alone; int64, (n_docs, n_bands)."""
    _, number, count = np.unique(keys, return_inverse=True, return_counts=True)
    shared = np.cumsum(count > 1) - 1
    return np.where(count > 1, shared, -1)[number].reshape(keys.shape)
