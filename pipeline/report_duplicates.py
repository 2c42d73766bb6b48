"""The report on duplicates between sources, and on what verifying them kept."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..operators.duplicates import Duplicates
from .report_html import Html, count, counted, join, paragraph, table
from .report_rows import StageFiles, read_columns
from .shard_work import SHARD_BITS, part_name

EARLIER_RUN = "(earlier run)"


def source_section(files: StageFiles, operator: Duplicates) -> Html:
    """Where the removed documents and those that stand for them come from."""
    found = duplicates_by_source(files, operator)
    kept = sorted({survivor for _, survivor in found})
    lines: list[list[str | int]] = []
    for removed in sorted({source for source, _ in found}):
        cells = [found[removed, survivor] for survivor in kept]
        lines.append([removed, *cells, sum(cells)])
    lead = paragraph("A row for the source of the removed documents, a column for that of their keepers.")
    header = ("removed from", *kept, "all")
    return join(
        [Html("<h4>Duplicates between sources</h4>"), lead, table("l" + "r" * (len(kept) + 1), header, lines)]
    )


def closure_sentence(files: StageFiles) -> Html:
    """What would have been removed as a candidate of a candidate, where the deduplication counted that."""
    summary = files.manifest.get("fit_summary", {})
    if "n_more_by_closure" not in summary:
        return Html()
    return paragraph(
        f"{counted(summary['n_with_candidates'], 'document')} had candidates. Each one that was removed is "
        "verified to be like its keeper; removing all candidates of candidates, unverified, would have taken "
        f"{count(summary['n_more_by_closure'])} more. The largest group of candidates of candidates has "
        f"{counted(summary['n_in_largest_component'], 'document')}."
    )


def duplicates_by_source(files: StageFiles, operator: Duplicates) -> Counter[tuple[str, str]]:
    """How many documents were removed, by (their source, their keeper's source)."""
    names = ["source", f"{operator.name}.keeper", f"{operator.name}.rank"]
    removed: list[pa.Array] = []
    keepers: list[np.ndarray] = []
    for path in files.dropped:
        rows = read_columns(path, names)
        is_duplicate = pc.fill_null(pc.greater(rows[names[2]].cast(pa.int64()), 0), False)
        rows = rows.filter(is_duplicate)
        removed.append(rows["source"].cast(pa.string()).combine_chunks())
        keepers.append(rows[names[1]].cast(pa.int64()).to_numpy())
    source, keeper = pa.chunked_array(removed, pa.string()), np.concatenate([*keepers, np.empty(0, np.int64)])
    return _by_keepers_source(files, source.to_numpy(), keeper)


def _by_keepers_source(files: StageFiles, source: np.ndarray, keeper: np.ndarray) -> Counter[tuple[str, str]]:
    """Reads the sources of one part of keepers at a time."""
    assert files.upstream is not None, "a deduplication never stands in the first stage"
    found: Counter[tuple[str, str]] = Counter()
    shard = keeper >> SHARD_BITS
    found.update((name, EARLIER_RUN) for name in source[shard < 0])
    for index in np.unique(shard[shard >= 0]).tolist():
        inside = shard == index
        names = (
            read_columns(files.upstream / part_name(index), ["source"])["source"].cast(pa.string()).to_numpy()
        )
        found.update(zip(source[inside], names[keeper[inside] & ((1 << SHARD_BITS) - 1)], strict=True))
    return found
