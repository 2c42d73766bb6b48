"""Held-out losses of an interpolated trigram model for any mixture of domains, and their gradients."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .jit import kernel

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Counts = NDArray[np.int32]  # (K, n_rows), by domain: a mixture's cost is that of reading them
Rows = NDArray[np.int32]

BLOCK = 2048  # rows whose sums stay in the first cache while all domains are added
SMALL_PRODUCT, SMALL_FACTOR = 1e-200, 1e-100  # their product is a normal number


class TrigramTables(NamedTuple):
    """Held-out trigrams a, b, c and the training counts at them.

    Trigrams of validation domain j stand together, from trigram_starts[j] on, those of one share together;
    contexts and bigrams are distinct over all of them.
    """

    n_tokens: Floats  # (K,), counted in each domain
    token_shares: Floats  # (V, K), of each token
    trigrams: Counts  # of a, b, c
    contexts: Counts  # of a, b with a token after it
    context_kinds: NDArray[np.float32]  # (K, n_contexts), different tokens after it
    bigrams: Counts  # of b, c
    tokens: Counts  # of b with a token after it
    token_kinds: NDArray[np.float32]  # (K, n_contexts of bigrams)
    trigram_context: Rows  # (n_trigrams,), a row of contexts
    trigram_bigram: Rows  # (n_trigrams,), a row of bigrams
    trigram_share: Floats  # (n_trigrams,), of the validation domain's sample
    bigram_context: Rows  # (n_bigrams,), a row of tokens
    bigram_token: Rows  # (n_bigrams,), c
    trigram_starts: Integers  # (J + 1,)


class BackOff(NamedTuple):
    """How the shorter contexts come in: D, kappa_1, kappa_2 and kappa_3."""

    discount: float
    unigram_tokens: float
    bigram_tokens: float
    trigram_tokens: float


class Levels(NamedTuple):
    """One mixture's model: what `mixture_losses` calls C_w and R_w, and its probabilities."""

    p1: Floats  # (V,)
    tokens: Floats  # C_w(b)
    taken_from_tokens: Floats  # R_w(b)
    p2: Floats  # (n_bigrams,)
    contexts: Floats  # C_w(a, b)
    taken_from_contexts: Floats  # R_w(a, b)
    p3: Floats  # (n_trigrams,)


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
    w = np.ascontiguousarray(weights, dtype=np.float64)
    losses = np.empty((len(w), len(tables.trigram_starts) - 1))
    _mixture_losses(tables, w, float(n_tokens), BackOff(*map(float, back_off)), losses)
    return losses


def mixture_gradients(
    tables: TrigramTables, weights: Floats, n_tokens: float, back_off: BackOff
) -> tuple[Floats, Floats]:
    """`mixture_losses`, and their derivatives in the weights as free variables: (M, J) and (M, J, K)."""
    w = np.ascontiguousarray(weights, dtype=np.float64)
    n_domains = len(tables.trigram_starts) - 1
    losses, gradients = np.empty((len(w), n_domains)), np.zeros((len(w), n_domains, w.shape[1]))
    _mixture_gradients(tables, w, float(n_tokens), BackOff(*map(float, back_off)), losses, gradients)
    return losses, gradients


def mixture_losses_reference(
    tables: TrigramTables, weights: Floats, n_tokens: float, back_off: BackOff
) -> Floats:
    """`mixture_losses` in plain numpy."""
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
    t, scale = tables, n_tokens * w / tables.n_tokens
    bigrams, trigrams = (scale @ np.maximum(counts - discount, 0) for counts in (t.bigrams, t.trigrams))
    taken_from_tokens = scale @ np.minimum(discount * t.token_kinds.astype(np.float64), t.tokens)
    taken_from_contexts = scale @ np.minimum(discount * t.context_kinds.astype(np.float64), t.contexts)
    p1 = (n_tokens * t.token_shares @ w + kappa1) / (n_tokens + kappa1 * len(t.token_shares))
    at = t.bigram_context
    p2 = bigrams + (taken_from_tokens[at] + kappa2) * p1[t.bigram_token]
    p2 /= (scale @ t.tokens)[at] + kappa2
    at = t.trigram_context
    p3 = trigrams + (taken_from_contexts[at] + kappa3) * p2[t.trigram_bigram]
    return np.asarray(p3 / ((scale @ t.contexts)[at] + kappa3))


@kernel
def _mixture_losses(
    t: TrigramTables, weights: Floats, n_tokens: float, back_off: BackOff, losses: Floats
) -> None:
    levels = _levels(t)
    for m in range(len(weights)):
        _evaluate(t, weights[m], n_tokens, back_off, levels, losses[m])


@kernel
def _levels(t: TrigramTables) -> Levels:
    """Room for them."""
    return Levels(
        np.empty(len(t.token_shares)),
        np.empty(t.tokens.shape[1]),
        np.zeros(t.tokens.shape[1]),
        np.empty(t.bigrams.shape[1]),
        np.empty(t.contexts.shape[1]),
        np.zeros(t.contexts.shape[1]),
        np.empty(t.trigrams.shape[1]),
    )


@kernel
def _evaluate(
    t: TrigramTables, w: Floats, n_tokens: float, back_off: BackOff, levels: Levels, losses: Floats
) -> None:
    """Fill the levels and the losses, (J,)."""
    p1, tokens, taken_tokens, p2, contexts, taken_contexts, p3 = levels
    discount, kappa1, kappa2, kappa3 = back_off
    scale = n_tokens * w / t.n_tokens
    for v in range(len(p1)):
        total = 0.0
        for k in range(len(w)):
            total += t.token_shares[v, k] * w[k]
        p1[v] = (n_tokens * total + kappa1) / (n_tokens + kappa1 * len(p1))
    _mix(t.tokens, 0.0, scale, tokens)
    _mix(t.contexts, 0.0, scale, contexts)
    if discount > 0.0:
        _mix_taken(t.tokens, t.token_kinds, discount, scale, taken_tokens)
        _mix_taken(t.contexts, t.context_kinds, discount, scale, taken_contexts)
    _mix(t.bigrams, discount, scale, p2)
    _mix(t.trigrams, discount, scale, p3)
    context_of, token_of = t.bigram_context, t.bigram_token
    for r in range(len(p2)):
        at = context_of[r]
        p2[r] = (p2[r] + (taken_tokens[at] + kappa2) * p1[token_of[r]]) / (tokens[at] + kappa2)
    context_of, bigram_of = t.trigram_context, t.trigram_bigram
    for r in range(len(p3)):
        at = context_of[r]
        p3[r] = (p3[r] + (taken_contexts[at] + kappa3) * p2[bigram_of[r]]) / (contexts[at] + kappa3)
    for j in range(len(losses)):
        own = slice(t.trigram_starts[j], t.trigram_starts[j + 1])
        losses[j] = _cross_entropy(t.trigram_share[own], p3[own])


@kernel
def _cross_entropy(shares: Floats, p: Floats) -> float:
    """-sum_r shares[r] log p[r], with one logarithm for the product of many p of one share."""
    loss, product, share = 0.0, 1.0, 0.0
    for r in range(len(p)):
        if shares[r] != share or product < SMALL_PRODUCT:
            loss -= share * np.log(product)
            product, share = 1.0, shares[r]
        if p[r] < SMALL_FACTOR:
            loss -= share * np.log(p[r])
        else:
            product *= p[r]
    return float(loss - share * np.log(product))


@kernel
def _mix(counts: Counts, discount: float, scale: Floats, out: Floats) -> None:
    """out[r] = sum_k scale[k] max(counts[k, r] - D, 0)."""
    for start in range(0, len(out), BLOCK):
        total = out[start : start + BLOCK]
        total[:] = 0.0
        for k in range(len(scale)):
            s, of_domain = scale[k], counts[k, start : start + BLOCK]
            if discount > 0.0:
                for r in range(len(total)):
                    total[r] += s * max(of_domain[r] - discount, 0.0)
            else:
                for r in range(len(total)):
                    total[r] += s * of_domain[r]


@kernel
def _mix_taken(
    counts: Counts, kinds: NDArray[np.float32], discount: float, scale: Floats, out: Floats
) -> None:
    """out[r] = sum_k scale[k] min(D kinds[k, r], counts[k, r]): what the discount takes of a context."""
    for start in range(0, len(out), BLOCK):
        total = out[start : start + BLOCK]
        total[:] = 0.0
        for k in range(len(scale)):
            s, of_domain, different = (
                scale[k],
                counts[k, start : start + BLOCK],
                kinds[k, start : start + BLOCK],
            )
            for r in range(len(total)):
                total[r] += s * min(discount * different[r], float(of_domain[r]))


@kernel
def _mixture_gradients(
    t: TrigramTables, weights: Floats, n_tokens: float, back_off: BackOff, losses: Floats, gradients: Floats
) -> None:
    levels = _levels(t)
    d_p2, d_contexts, d_taken = (
        np.zeros(len(levels.p2)),
        np.zeros(len(levels.contexts)),
        np.zeros_like(levels.contexts),
    )
    for m in range(len(weights)):
        _evaluate(t, weights[m], n_tokens, back_off, levels, losses[m])
        for j in range(losses.shape[1]):
            _backwards(t, n_tokens, back_off, levels, j, d_p2, d_contexts, d_taken, gradients[m, j])


@kernel
def _backwards(
    t: TrigramTables,
    n_tokens: float,
    back_off: BackOff,
    levels: Levels,
    j: int,
    d_p2: Floats,
    d_contexts: Floats,
    d_taken: Floats,
    gradient: Floats,
) -> None:
    """Derivatives of validation domain j's loss, (K,); they are zeros before, d_* before and after.

    Of the contexts and bigrams only those of the domain's trigrams are walked.
    """
    p1, tokens, taken_tokens, p2, contexts, taken_contexts, p3 = levels
    discount, kappa1, kappa2, kappa3 = back_off
    low, high = t.trigram_starts[j], t.trigram_starts[j + 1]
    d_p3 = np.empty(high - low)
    for r in range(low, high):
        at, q = t.trigram_context[r], t.trigram_bigram[r]
        d = -t.trigram_share[r] / (p3[r] * (contexts[at] + kappa3))  # by the numerator of p3
        d_p3[r - low] = d
        d_taken[at] += d * p2[q]
        d_contexts[at] -= d * p3[r]
        d_p2[q] += d * (taken_contexts[at] + kappa3)
    _add(t.trigrams, discount, np.arange(low, high), d_p3, gradient)
    rows = np.flatnonzero(d_contexts)
    _add(t.contexts, 0.0, rows, d_contexts[rows], gradient)
    if discount > 0.0:
        _add_taken(t.contexts, t.context_kinds, discount, rows, d_taken[rows], gradient)
    d_contexts[:] = 0.0
    d_taken[:] = 0.0
    d_tokens, d_taken_tokens, d_p1 = np.zeros(len(tokens)), np.zeros(len(tokens)), np.zeros(len(p1))
    rows = np.flatnonzero(d_p2)
    for i in range(len(rows)):
        q = rows[i]
        at, v = t.bigram_context[q], t.bigram_token[q]
        d = d_p2[q] / (tokens[at] + kappa2)  # by the numerator of p2
        d_p2[q] = d
        d_taken_tokens[at] += d * p1[v]
        d_tokens[at] -= d * p2[q]
        d_p1[v] += d * (taken_tokens[at] + kappa2)
    _add(t.bigrams, discount, rows, d_p2[rows], gradient)
    d_p2[:] = 0.0
    rows = np.flatnonzero(d_tokens)
    _add(t.tokens, 0.0, rows, d_tokens[rows], gradient)
    if discount > 0.0:
        _add_taken(t.tokens, t.token_kinds, discount, rows, d_taken_tokens[rows], gradient)
    for k in range(len(gradient)):
        gradient[k] *= n_tokens / t.n_tokens[k]
    for v in range(len(p1)):
        d = d_p1[v] * n_tokens / (n_tokens + kappa1 * len(p1))
        if d != 0.0:
            for k in range(len(gradient)):
                gradient[k] += d * t.token_shares[v, k]


@kernel
def _add(counts: Counts, discount: float, rows: Integers, d: Floats, gradient: Floats) -> None:
    """gradient[k] += sum_i d[i] max(counts[k, rows[i]] - D, 0)."""
    for k in range(len(gradient)):
        total, of_domain = 0.0, counts[k]
        for i in range(len(rows)):
            total += d[i] * max(of_domain[rows[i]] - discount, 0.0)
        gradient[k] += total


@kernel
def _add_taken(
    counts: Counts,
    kinds: NDArray[np.float32],
    discount: float,
    rows: Integers,
    d: Floats,
    gradient: Floats,
) -> None:
    """gradient[k] += sum_i d[i] min(D kinds[k, rows[i]], counts[k, rows[i]])."""
    for k in range(len(gradient)):
        total, of_domain, different = 0.0, counts[k], kinds[k]
        for i in range(len(rows)):
            total += d[i] * min(discount * different[rows[i]], float(of_domain[rows[i]]))
        gradient[k] += total
