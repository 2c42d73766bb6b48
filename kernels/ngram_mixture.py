"""Held-out losses of an interpolated trigram model for any mixture of domains, and their gradients."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .jit import kernel

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class SparseCounts(NamedTuple):
    """Counts by row and domain without the zeros; row r has the entries starts[r]:starts[r + 1].

    Small types: a mixture's cost is that of reading them.
    """

    starts: Integers  # (n_rows + 1,)
    domains: NDArray[np.uint16]  # (n_entries,)
    counts: NDArray[np.int32]  # (n_entries,), of an n-gram, or of a context with a token after it
    kinds: NDArray[np.float32]  # (n_entries,), different tokens after a context; empty for n-grams


class TrigramTables(NamedTuple):
    """Held-out trigrams a, b, c and the training counts at them.

    Rows of validation domain j stand together, those of trigrams from trigram_starts[j] on, and so on.
    """

    n_tokens: Floats  # (K,), counted in each domain
    token_shares: Floats  # (V, K), of each token
    trigrams: SparseCounts  # of a, b, c
    contexts: SparseCounts  # of a, b
    bigrams: SparseCounts  # of b, c
    tokens: SparseCounts  # of b as a context
    trigram_context: Integers  # (n_trigrams,), a row of contexts
    trigram_bigram: Integers  # (n_trigrams,), a row of bigrams
    trigram_share: Floats  # (n_trigrams,), of the validation domain's sample
    bigram_context: Integers  # (n_bigrams,), a row of tokens
    bigram_token: Integers  # (n_bigrams,), c
    trigram_starts: Integers  # (J + 1,)
    context_starts: Integers  # (J + 1,)
    bigram_starts: Integers  # (J + 1,)
    token_starts: Integers  # (J + 1,)


class BackOff(NamedTuple):
    """How the shorter contexts come in: D, kappa_1, kappa_2 and kappa_3."""

    discount: float
    unigram_tokens: float
    bigram_tokens: float
    trigram_tokens: float


def mixture_losses(tables: TrigramTables, weights: Floats, n_tokens: float, back_off: BackOff) -> Floats:
    """Mean -log p_w(c | a, b) of each validation domain.

    With X_w = N sum_i w_i X_i / n_i for what was counted in the n_i tokens of domain i, C its counts, C'
    those lowered by D, and R what that takes from all continuations of a context:

        p_w(c | a, b) = (C'_w(a, b, c) + (R_w(a, b) + kappa_3) p_w(c | b)) / (C_w(a, b) + kappa_3)
        p_w(c | b)    = (C'_w(b, c) + (R_w(b) + kappa_2) p_w(c)) / (C_w(b) + kappa_2)
        p_w(c)        = (C_w(c) + kappa_1) / (N + kappa_1 V)

    Args:
        tables: what was counted.
        weights: float64, (M, K).
        n_tokens: N.
        back_off: D from 0 to 1, kappas above 0.
    Returns:
        float64, (M, J), nats per token.
    """
    return _evaluated(tables, weights, n_tokens, back_off, False)[0]


def mixture_gradients(
    tables: TrigramTables, weights: Floats, n_tokens: float, back_off: BackOff
) -> tuple[Floats, Floats]:
    """`mixture_losses`, and their derivatives in the weights as free variables: (M, J) and (M, J, K)."""
    return _evaluated(tables, weights, n_tokens, back_off, True)


def mixture_losses_reference(
    tables: TrigramTables, weights: Floats, n_tokens: float, back_off: BackOff
) -> Floats:
    """`mixture_losses` in plain numpy, with dense matrices."""
    n_domains = len(tables.trigram_starts) - 1
    of = np.repeat(np.arange(n_domains), np.diff(tables.trigram_starts))
    rows = []
    for w in np.asarray(weights, dtype=np.float64):
        p3 = trigram_probabilities(tables, w, n_tokens, back_off)
        rows.append(-np.bincount(of, tables.trigram_share * np.log(p3), n_domains))
    return np.array(rows, dtype=np.float64).reshape(len(rows), n_domains)


def trigram_probabilities(tables: TrigramTables, w: Floats, n_tokens: float, back_off: BackOff) -> Floats:
    """p_w(c | a, b) of each held-out trigram under one mixture, (K,): float64, (n_trigrams,)."""
    discount, kappa1, kappa2, kappa3 = back_off
    scale = n_tokens * w / tables.n_tokens
    trigrams, contexts, bigrams, tokens = (_dense(sparse.counts, sparse, len(w)) for sparse in tables[2:6])
    taken_from_contexts, taken_from_tokens = (
        np.minimum(discount * _dense(sparse.kinds, sparse, len(w)), counts) @ scale
        for sparse, counts in ((tables.contexts, contexts), (tables.tokens, tokens))
    )
    p1 = (n_tokens * tables.token_shares @ w + kappa1) / (n_tokens + kappa1 * len(tables.token_shares))
    at = tables.bigram_context
    p2 = np.maximum(bigrams - discount, 0) @ scale
    p2 += (taken_from_tokens[at] + kappa2) * p1[tables.bigram_token]
    p2 /= (tokens @ scale)[at] + kappa2
    at = tables.trigram_context
    p3 = np.maximum(trigrams - discount, 0) @ scale
    p3 += (taken_from_contexts[at] + kappa3) * p2[tables.trigram_bigram]
    return np.asarray(p3 / ((contexts @ scale)[at] + kappa3))


def _dense(values: NDArray[np.generic], sparse: SparseCounts, n_domains: int) -> Floats:
    """float64, (n_rows, K)."""
    matrix = np.zeros((len(sparse.starts) - 1, n_domains))
    rows = np.repeat(np.arange(len(matrix)), np.diff(sparse.starts))
    matrix[rows, sparse.domains] = values
    return matrix


def _evaluated(
    tables: TrigramTables, weights: Floats, n_tokens: float, back_off: BackOff, with_gradients: bool
) -> tuple[Floats, Floats]:
    w = np.ascontiguousarray(weights, dtype=np.float64)
    n_domains = len(tables.trigram_starts) - 1
    losses = np.empty((len(w), n_domains))
    gradients = np.empty((len(w) if with_gradients else 0, n_domains, w.shape[1]))
    _mixture_losses(tables, w, float(n_tokens), BackOff(*map(float, back_off)), losses, gradients)
    return losses, gradients


@kernel
def _mixture_losses(
    t: TrigramTables, weights: Floats, n_tokens: float, back_off: BackOff, losses: Floats, gradients: Floats
) -> None:
    discount, kappa1, kappa2, kappa3 = back_off
    n_vocabulary = len(t.token_shares)
    p1 = np.empty(n_vocabulary)
    bigrams, tokens = np.empty(t.bigram_starts[-1]), np.empty(t.token_starts[-1])
    trigrams, contexts = np.empty(t.trigram_starts[-1]), np.empty(t.context_starts[-1])
    taken_tokens, taken_contexts = np.zeros(t.token_starts[-1]), np.zeros(t.context_starts[-1])
    for m in range(len(weights)):
        w = weights[m]
        scale = n_tokens * w / t.n_tokens
        for v in range(n_vocabulary):
            total = 0.0
            for k in range(len(w)):
                total += t.token_shares[v, k] * w[k]
            p1[v] = (n_tokens * total + kappa1) / (n_tokens + kappa1 * n_vocabulary)
        _mix_contexts(t.tokens, discount, scale, tokens, taken_tokens)
        _mix_contexts(t.contexts, discount, scale, contexts, taken_contexts)
        _mix_ngrams(t.bigrams, discount, scale, bigrams)
        _mix_ngrams(t.trigrams, discount, scale, trigrams)
        for r in range(len(bigrams)):
            at = t.bigram_context[r]
            bigrams[r] += (taken_tokens[at] + kappa2) * p1[t.bigram_token[r]]
            bigrams[r] /= tokens[at] + kappa2  # p(c | b) from here on
        for j in range(losses.shape[1]):
            loss = 0.0
            for r in range(t.trigram_starts[j], t.trigram_starts[j + 1]):
                at = t.trigram_context[r]
                trigrams[r] += (taken_contexts[at] + kappa3) * bigrams[t.trigram_bigram[r]]
                loss -= t.trigram_share[r] * np.log(trigrams[r] / (contexts[at] + kappa3))
            losses[m, j] = loss
        if len(gradients):
            _backwards(
                t,
                n_tokens,
                back_off,
                p1,
                tokens,
                taken_tokens,
                bigrams,
                contexts,
                taken_contexts,
                trigrams,
                gradients[m],
            )


@kernel
def _backwards(
    t: TrigramTables,
    n_tokens: float,
    back_off: BackOff,
    p1: Floats,
    tokens: Floats,
    taken_tokens: Floats,
    bigrams: Floats,
    contexts: Floats,
    taken_contexts: Floats,
    trigrams: Floats,
    gradients: Floats,
) -> None:
    """Derivatives in the weights, (J, K). d_x[r] is that of the loss of the validation domain that has row r.

    `bigrams` are the probabilities p(c | b), `trigrams` the numerators of p(c | a, b).
    """
    discount, kappa1, kappa2, kappa3 = back_off
    d_bigrams, d_trigrams = np.zeros(len(bigrams)), np.empty(len(trigrams))
    d_contexts, d_taken_contexts = np.zeros(len(contexts)), np.zeros(len(contexts))
    d_tokens, d_taken_tokens = np.zeros(len(tokens)), np.zeros(len(tokens))
    for r in range(len(trigrams)):
        at, q = t.trigram_context[r], t.trigram_bigram[r]
        d = -t.trigram_share[r] / trigrams[r]
        d_trigrams[r] = d
        d_taken_contexts[at] += d * bigrams[q]
        d_bigrams[q] += d * (taken_contexts[at] + kappa3)
        d_contexts[at] += t.trigram_share[r] / (contexts[at] + kappa3)
    for r in range(len(bigrams)):
        at = t.bigram_context[r]
        d = d_bigrams[r] / (tokens[at] + kappa2)
        d_taken_tokens[at] += d * p1[t.bigram_token[r]]
        d_tokens[at] -= d * bigrams[r]
        d_bigrams[r] = d  # by the numerator from here on
    n_vocabulary, d_p1 = len(p1), np.empty(len(p1))
    for j in range(len(gradients)):
        gradient = gradients[j]
        gradient[:] = 0.0
        low, high = t.trigram_starts[j], t.trigram_starts[j + 1]
        for r in range(low, high):
            for i in range(t.trigrams.starts[r], t.trigrams.starts[r + 1]):
                gradient[t.trigrams.domains[i]] += d_trigrams[r] * (t.trigrams.counts[i] - discount)
        low, high = t.context_starts[j], t.context_starts[j + 1]
        _add_contexts(t.contexts, discount, d_contexts, d_taken_contexts, low, high, gradient)
        low, high = t.token_starts[j], t.token_starts[j + 1]
        _add_contexts(t.tokens, discount, d_tokens, d_taken_tokens, low, high, gradient)
        d_p1[:] = 0.0
        for r in range(t.bigram_starts[j], t.bigram_starts[j + 1]):
            d_p1[t.bigram_token[r]] += d_bigrams[r] * (taken_tokens[t.bigram_context[r]] + kappa2)
            for i in range(t.bigrams.starts[r], t.bigrams.starts[r + 1]):
                gradient[t.bigrams.domains[i]] += d_bigrams[r] * (t.bigrams.counts[i] - discount)
        for k in range(len(gradient)):
            gradient[k] *= n_tokens / t.n_tokens[k]
        for v in range(n_vocabulary):
            d = d_p1[v] * n_tokens / (n_tokens + kappa1 * n_vocabulary)
            if d != 0.0:
                for k in range(len(gradient)):
                    gradient[k] += d * t.token_shares[v, k]


@kernel
def _add_contexts(
    contexts: SparseCounts,
    discount: float,
    d_counts: Floats,
    d_taken: Floats,
    low: int,
    high: int,
    gradient: Floats,
) -> None:
    """What the rows low:high of contexts add to the derivatives by scaled weight, (K,)."""
    for r in range(low, high):
        for i in range(contexts.starts[r], contexts.starts[r + 1]):
            count = float(contexts.counts[i])
            taken = min(discount * contexts.kinds[i], count) if discount > 0.0 else 0.0
            gradient[contexts.domains[i]] += d_counts[r] * count + d_taken[r] * taken


@kernel
def _mix_ngrams(ngrams: SparseCounts, discount: float, scale: Floats, out: Floats) -> None:
    """out[r] = sum_k scale[k] max(count[r, k] - D, 0)."""
    starts, domains, counts, _ = ngrams  # not the tuple in the loop: numba counts references
    for r in range(len(out)):
        total = 0.0
        for i in range(starts[r], starts[r + 1]):
            total += (counts[i] - discount) * scale[domains[i]]
        out[r] = total


@kernel
def _mix_contexts(contexts: SparseCounts, discount: float, scale: Floats, out: Floats, taken: Floats) -> None:
    """out[r] = sum_k scale[k] count[r, k], and taken[r] what the discount takes of it."""
    starts, domains, counts, kinds = contexts
    for r in range(len(out)):
        total, total_taken = 0.0, 0.0
        for i in range(starts[r], starts[r + 1]):
            total += counts[i] * scale[domains[i]]
            if discount > 0.0:
                total_taken += min(discount * kinds[i], float(counts[i])) * scale[domains[i]]
        out[r], taken[r] = total, total_taken
