"""Names of clusters: the words that tell one best from the others."""

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

NAME_WORDS = 3
_SPOKEN = 0.02
"""A word is spoken in a cluster if this share of its documents has it."""
_EVERYWHERE = 1 / 3
"""A word spoken in a larger share of the clusters names none: a stop word, or boilerplate."""
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
# Letters with the vowel signs that \w leaves out, or two letters of a script without spaces.
_WORD = re.compile(rf"[{_UNSPACED}]{{2}}|(?:(?![{_UNSPACED}])[^\W\d_]|[\u0300-\u036f\u0900-\u0dff]){{3,}}")


def name_clusters(texts: Sequence[str], which: NDArray[np.int64], n_clusters: int) -> list[str]:
    """The words of largest class-based TF-IDF of each cluster, joined; the same name again gets a number.

    Counted are documents, so no document names its cluster alone: the score of a word is the share f of the
    cluster's documents that have it times ``log((1 + n_clusters) f / (f + the others' sum of f))``. Words
    spoken in more than a third of the clusters, and in two at least, are left out.

    Args:
        texts: in their own case; which: int64, (n_texts,), in [0, n_clusters).
    Source: Grootendorst 2022, "BERTopic", section 3.3 (class-based TF-IDF), with shares of documents in place
        of counts of words; stop words found by their frequency over clusters instead of a list.

    >>> texts = ["the wine in the cellar", "a wine of the cellar", "the loss curve", "the loss of a curve"]
    >>> name_clusters(texts, np.array([0, 0, 1, 1]), 2)
    ['cellar-wine', 'curve-loss']
    """
    shares = _document_shares(texts, which, n_clusters)
    overall, n_spoken = Counter[str](), Counter[str]()
    for words in shares:
        overall.update(words)
        n_spoken.update(word for word, share in words.items() if share >= _SPOKEN)
    most = max(1, int(_EVERYWHERE * n_clusters))
    names: list[str] = []
    for words in shares:
        scores = {
            word: share * math.log((1 + n_clusters) * share / (share + overall[word]))
            for word, share in words.items()
            if n_spoken[word] <= most
        }
        top = sorted(scores, key=lambda word: (-scores[word], word))[:NAME_WORDS]
        name = "-".join(top) or "cluster"
        n_taken = sum(other == name or other.rpartition("-")[0] == name for other in names)
        names.append(f"{name}-{n_taken + 1}" if n_taken else name)
    return names


def _document_shares(
    texts: Sequence[str], which: NDArray[np.int64], n_clusters: int
) -> list[dict[str, float]]:
    """For each cluster, the share of its documents that have a word; words of one document alone left out
    where the cluster has others."""
    n_docs = np.bincount(which, minlength=n_clusters)
    counts = [Counter[str]() for _ in range(n_clusters)]
    for text, cluster in zip(texts, which.tolist(), strict=True):
        counts[cluster].update(set(_WORD.findall(text.lower())))
    return [
        {word: n / size for word, n in words.items() if n > 1 or size < 2 * NAME_WORDS}
        for words, size in zip(counts, n_docs.tolist(), strict=True)
    ]
