"""What the loader and the selectors of a super-batch have in common: candidates in, few of them out.

A super-batch is a few batches' worth of rows, the same on every rank; a selector names the rows to train on.
What it chooses is a function of (candidates, k, its state, the generator) alone, so every rank can repeat it.
The selectors: selectors.py.
"""

import base64
import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..kernels.permutation import mix64

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
OPTIONAL: dict[str, type] = {
    "losses": np.float64,
    "reference_losses": np.float64,
    "features": np.float32,
    "row_ids": np.uint64,
}


@dataclass(frozen=True, eq=False)
class Candidates:
    """The n rows of a super-batch, over all ranks, in global row order.

    Args:
        sources: int64, (n,), the index of each row's domain.
        losses: float64, (n,), the learner's mean loss of each row, nats per token; NaN: not reported.
        reference_losses: float64, (n,), the same under a reference model; NaN: not known.
        features: float32, (n, d), finite: rows that teach the same point the same way (features.py).
        row_ids: uint64, (n,), names of rows that stay the same from epoch to epoch.
    Raises:
        ValueError: an array's shape, or a value, is not as above.

    >>> Candidates(np.array([0, 0, 1]), losses=np.array([1.0, 2.0]))
    Traceback (most recent call last):
    ValueError: losses have shape (2,); there are 3 candidates, so (3,) is needed
    """

    sources: Ints
    losses: Floats | None = None
    reference_losses: Floats | None = None
    features: NDArray[np.float32] | None = None
    row_ids: NDArray[np.uint64] | None = None

    def __post_init__(self) -> None:
        n = len(self.sources)
        for name, kind in {"sources": np.int64, **OPTIONAL}.items():
            values = getattr(self, name)
            if values is None:
                continue
            values = np.ascontiguousarray(values, kind)
            if len(values) != n or values.ndim != (2 if name == "features" else 1):
                needed = f"({n}, d)" if name == "features" else f"({n},)"
                raise ValueError(
                    f"{name} have shape {values.shape}; there are {n} candidates, so {needed} is needed"
                )
            object.__setattr__(self, name, values)
        if n and self.sources.min() < 0:
            raise ValueError("sources must be indices of domains, one for each candidate, none below 0")
        if self.features is not None and not np.isfinite(self.features).all():
            row = int(np.argmax(~np.isfinite(self.features).all(axis=1)))
            raise ValueError(f"features[{row}] has values that are not finite; a row without is all zeros")

    def take(self, rows: Ints) -> "Candidates":
        """These rows alone."""
        arrays = {name: getattr(self, name) for name in OPTIONAL}
        taken = {name: None if values is None else values[rows] for name, values in arrays.items()}
        return Candidates(self.sources[rows], **taken)


@dataclass(frozen=True, eq=False)
class Selection:
    """The rows to train on.

    indices: int64, (k,), into the candidates, ascending, distinct.
    weights: float32, (k,), by which to multiply each row's loss; mean one, unless the method says otherwise.
    """

    indices: Ints
    weights: NDArray[np.float32]


class Selector(ABC):
    """Chooses k rows of a super-batch.

    `needs` names the fields of `Candidates` that it cannot do without.
    """

    needs: frozenset[str] = frozenset()
    state: ClassVar[tuple[str, ...]] = ()
    """Attributes that decide selections to come, besides `n_selections`: numbers, arrays, row tables."""
    may_change: ClassVar[tuple[str, ...]] = ("n_total", "device")
    """Arguments that a resumed run may give anew: how long it is, and where it computes."""

    def __init__(self) -> None:
        self.n_selections = 0

    def select(self, candidates: Candidates, k: int, random: np.random.Generator) -> Selection:
        """The k rows to train on.

        Args:
            candidates: one super-batch.
            k: rows to choose, none to all of them.
            random: decides whatever is left to chance; the same state and generator choose the same.
        Raises:
            ValueError: k is out of range, or what the method needs is missing.
        """
        n = candidates.sources.size
        if not 0 <= k <= n:
            raise ValueError(f"k is {k}; of {n} candidates none to all can be chosen")
        missing = [name for name in OPTIONAL if name in self.needs and getattr(candidates, name) is None]
        if missing:
            raise ValueError(
                f"{type(self).__name__} needs {' and '.join(missing)}, which these candidates lack; hand "
                "them to the selection, or choose a method that does without ('random' needs nothing)"
            )
        rows, weights = self._select(candidates, k, random) if k else (np.empty(0, np.int64), np.empty(0))
        self.n_selections += 1
        order = np.argsort(rows)
        return Selection(rows[order].astype(np.int64), weights[order].astype(np.float32))

    @abstractmethod
    def _select(
        self, candidates: Candidates, k: int, random: np.random.Generator
    ) -> tuple[Ints, NDArray[np.floating[Any]]]:
        """k >= 1 distinct rows in any order, and the weight of each."""

    def observe(self, trained: Candidates) -> None:  # noqa: B027 (most methods learn nothing)
        """Learn from rows that were trained on, their losses among the fields and all of them finite.

        The rows of one selection, or some of them, as candidates were: called with what was reported since
        the last selection, before the next one.
        """

    def state_dict(self) -> dict[str, Any]:
        """Plain JSON, enough to go on exactly; arrays as base64 of their little-endian bytes."""
        names = ("n_selections", *self.state)
        found = {name: _packed(getattr(self, name)) for name in names}
        return {"method": type(self).__name__, "parameters": self.parameters(), **found}

    def parameters(self) -> dict[str, Any]:
        """The arguments that a state must agree with: those kept by name that are numbers or texts."""
        names = [name for name in inspect.signature(type(self).__init__).parameters if hasattr(self, name)]
        found = {name: getattr(self, name) for name in names if name not in self.may_change}
        found = {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}
        return {name: each for name, each in found.items() if isinstance(each, int | float | str | list)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Raises:
            ValueError: it is of another method, of other parameters or of another size; nothing is changed
                then.
        """
        names, ours = ("n_selections", *self.state), self.parameters()
        has, of = set(state) - {"method", "parameters"}, state.get("method")
        if of != type(self).__name__ or has != set(names):
            raise ValueError(
                f"state is of method {of!r} with {sorted(has)}; this is {type(self).__name__!r} with "
                f"{sorted(names)}: build the selector that was saved"
            )
        for name, saved in state.get("parameters", ours).items():
            if ours.get(name) != saved:
                raise ValueError(
                    f"state: {name} of {of!r} is {saved!r}, here it is {ours.get(name)!r}; give the saved one"
                )
        found = {name: _unpacked(name, state[name], getattr(self, name)) for name in names}
        for name, value in found.items():
            setattr(self, name, value)


class RowTable:
    """One number for each row id, for at most `capacity` rows; a newcomer may take an old row's place.

    A row has one place, by the hash of its id, so memory is fixed and a look-up is one step. Half full, a
    table forgets a fifth of its rows to newcomers: choose a capacity of a few times the rows.

    Args:
        capacity: rounded up to a power of two.

    >>> table = RowTable(8)
    >>> table.put(np.array([7, 9], np.uint64), np.array([1.5, 2.5]))
    >>> table.get(np.array([9, 8, 7], np.uint64)).tolist()
    [2.5, nan, 1.5]
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"table_size is {capacity}; it must be 1 or more")
        self.capacity = 1 << (capacity - 1).bit_length()
        self.row_ids = np.zeros(self.capacity, np.uint64)
        self.values = np.full(self.capacity, np.nan, np.float32)

    def get(self, row_ids: NDArray[np.uint64]) -> NDArray[np.float32]:
        """float32, (n,), what was last put; NaN of rows that are not held."""
        places = self._places(row_ids)
        return np.where(self.row_ids[places] == row_ids, self.values[places], np.float32(np.nan))

    def put(self, row_ids: NDArray[np.uint64], values: NDArray[np.floating[Any]]) -> None:
        """Of rows that share a place, the last one stays; NaN is not put."""
        is_known = ~np.isnan(values)
        places = self._places(row_ids[is_known])
        self.row_ids[places], self.values[places] = row_ids[is_known], values[is_known]

    def _places(self, row_ids: NDArray[np.uint64]) -> NDArray[np.uint64]:
        return mix64(row_ids, 0) & np.uint64(self.capacity - 1)

    def state_dict(self) -> dict[str, Any]:
        held = ~np.isnan(self.values)
        return {
            "capacity": self.capacity,
            "row_ids": _packed(self.row_ids[held]),
            "values": _packed(self.values[held]),
        }

    def loaded(self, name: str, state: Mapping[str, Any]) -> "RowTable":
        if state["capacity"] != self.capacity:
            raise ValueError(
                f"state: {name} is a table of {state['capacity']} rows, this selector's has {self.capacity}; "
                "give the table_size that was saved"
            )
        found, none = RowTable(self.capacity), np.empty(0)
        ids = _unpacked(name, state["row_ids"], none.astype(np.uint64))
        found.put(ids, _unpacked(name, state["values"], none.astype(np.float32)))
        return found


def filled(losses: Floats, sources: Ints) -> Floats:
    """Losses, with the mean of its source (else of all, else 0) in place of each that is not finite.

    >>> filled(np.array([1.0, np.nan, 5.0, np.nan]), np.array([0, 0, 1, 2])).tolist()
    [1.0, 1.0, 5.0, 3.0]
    """
    is_known = np.isfinite(losses)
    if is_known.all():
        return losses
    known, of = losses[is_known], sources[is_known]
    sums = np.bincount(of, known, minlength=int(sources.max()) + 1)
    counts = np.bincount(of, minlength=sums.size)
    means = np.where(counts > 0, sums / np.maximum(counts, 1), known.mean() if known.size else 0.0)
    return np.where(is_known, losses, means[sources])


def proportional_budgets(sizes: Ints, k: int) -> Ints:
    """k rows in proportion to the sizes: each share rounded down, what is left to the smallest first.

    Args:
        sizes: int64, (n_sources,), rows of each; k <= their sum.
    Returns:
        int64, (n_sources,), <= sizes, summing to k.
    Source: CoLM (Nguyen et al. 2024, arXiv 2407.19580), the released code's budgets.

    >>> proportional_budgets(np.array([5, 2, 0, 3]), 4).tolist()
    [2, 1, 0, 1]
    """
    of_each = sizes.tolist()  # whole numbers of Python: an array of few sources takes ten times as long
    n = sum(of_each)
    budgets = [size * k // n if n else 0 for size in of_each]
    n_left = k - sum(budgets)
    for source in sorted(range(len(of_each)), key=of_each.__getitem__):
        if n_left and budgets[source] < of_each[source]:
            budgets[source] += 1
            n_left -= 1
    return np.array(budgets, np.int64)


def shares(sources: Ints, k: int) -> Iterator[tuple[Ints, int]]:
    """Of each source with a budget, its rows and how many of them are to be chosen."""
    sizes = np.bincount(sources)
    by_source, end = np.argsort(sources, kind="stable"), 0
    for size, budget in zip(sizes.tolist(), proportional_budgets(sizes, k).tolist(), strict=True):
        end += size
        if budget:
            yield by_source[end - size : end], budget


def mean_one(weights: Floats) -> Floats:
    """Weights scaled to a mean of one."""
    scaled: Floats = weights * (weights.size / weights.sum())
    return scaled


def _packed(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        data = value.astype(value.dtype.newbyteorder("<")).tobytes()
        return {
            "dtype": value.dtype.name,
            "shape": list(value.shape),
            "base64": base64.b64encode(data).decode("ascii"),
        }
    return value.state_dict() if isinstance(value, RowTable) else value


def _unpacked(name: str, found: Any, now: Any) -> Any:
    """What was packed, in the place of `now`: an array with nothing in it yet takes any shape."""
    if isinstance(now, RowTable):
        return now.loaded(name, found)
    if not isinstance(now, np.ndarray):
        return found
    dtype = np.dtype(found["dtype"])
    values = np.frombuffer(base64.b64decode(found["base64"]), dtype.newbyteorder("<")).astype(dtype)
    if dtype != now.dtype or (now.size and tuple(found["shape"]) != now.shape):
        raise ValueError(
            f"state: {name} is {dtype} of shape {tuple(found['shape'])}, this selector's is {now.dtype} of "
            f"shape {now.shape}"
        )
    return values.reshape(found["shape"])
