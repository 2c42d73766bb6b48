"""Connected components of a graph given by its edges."""

import numpy as np
from numpy.typing import NDArray

from .jit import kernel


def components(a: NDArray[np.int64], b: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The nodes that edges name, each with the smallest node of its component.

    The answer is itself a set of edges (node, root): a spanning forest of stars, which gives the same
    components and is never larger than the nodes named, however many edges went in.

    Args:
        a, b: int64, (n_edges,), any node numbers; a[i] and b[i] are connected.
    Returns:
        nodes: int64, (n_nodes,), ascending.
        roots: int64, (n_nodes,).
    Cost: a sort of the nodes; then O(n_edges log n_nodes) at worst, in practice linear.

    >>> components(np.array([7, 3, 9]), np.array([5, 7, 9]))
    (array([3, 5, 7, 9]), array([3, 3, 3, 9]))
    """
    nodes, dense = np.unique(np.concatenate([a, b]), return_inverse=True)
    return nodes, nodes[_roots(dense[: len(a)], dense[len(a) :], len(nodes))]


def components_reference(
    a: NDArray[np.int64], b: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """`components` in plain Python: every node takes the smallest number next to it until nothing changes."""
    root = {int(node): int(node) for node in [*a, *b]}
    changed = True
    while changed:
        changed = False
        for x, y in zip(a.tolist(), b.tolist(), strict=True):
            lowest = min(root[x], root[y])
            changed |= root[x] != lowest or root[y] != lowest
            root[x] = root[y] = lowest
    nodes = sorted(root)
    return np.array(nodes, np.int64), np.array([root[node] for node in nodes], np.int64)


@kernel
def _roots(a: NDArray[np.int64], b: NDArray[np.int64], n_nodes: int) -> NDArray[np.int64]:
    parent = np.arange(n_nodes)
    for i in range(len(a)):
        x, y = _find(parent, a[i]), _find(parent, b[i])
        # The smaller node becomes the root, so the answer does not depend on the order of the edges.
        parent[max(x, y)] = min(x, y)
    for node in range(n_nodes):  # parents are smaller than their children, so theirs are final
        parent[node] = parent[parent[node]]
    return parent


@kernel
def _find(parent: NDArray[np.int64], node: int) -> int:
    while parent[node] != node:
        parent[node] = parent[parent[node]]  # path halving
        node = parent[node]
    return node
