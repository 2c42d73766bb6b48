"""RegMix's two regressions: linear, and boosted trees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from threadpoolctl import threadpool_limits

from .cross_fitted import CrossFittedMixer, Surface
from .mixer import Floats
from .table import RunTable

MIN_SAMPLES_LEAF = 20  # LightGBM's default, which RegMix keeps
FEW_RUNS, MIN_SAMPLES_LEAF_OF_FEW = 200, 5


@dataclass(eq=False, kw_only=True)
class LinearMixer(CrossFittedMixer):
    """Loss as a linear function of the weights, by least squares.

    Weights sum to one, so that the coefficients need no intercept. Its optimum is a vertex of the caps.

    Source: RegMix (Liu et al. 2024), section 3, the baseline.
    """

    def fit_surface(self, weights: Floats, metrics: Floats) -> Surface:
        coefficients = np.linalg.lstsq(weights, metrics, rcond=None)[0]  # (K, J)
        return lambda w: np.asarray(w @ coefficients)


@dataclass(eq=False, kw_only=True)
class RegMixMixer(CrossFittedMixer):
    """Boosted regression trees, one model for each metric.

    Predictions are piecewise constant: `recommend` samples mixtures for it instead of following a gradient.
    Needs scikit-learn: `pip install 'cuvee[trees]'`. 512 runs, 13 metrics, 5 parts: about a minute.

    Args:
        learning_rate, n_trees: of the boosting, as in the paper.

    Source: RegMix (Liu et al. 2024), section 3 and its code: LightGBM, learning rate .01, 1000 rounds, else
        defaults. Here scikit-learn's histogram trees, without the early stopping on the test file. Leaves
        hold at least 20 runs as there, but 5 below 200 runs, where 20 leave a constant.
    """

    n_folds: int = 5
    learning_rate: float = 0.01
    n_trees: int = 1000
    is_smooth: ClassVar[bool] = False

    def fit(self, runs: RunTable) -> Self:
        """Learn from 8 or more runs of one fidelity.

        Raises:
            ValueError: fewer runs, or several fidelities; there is no scikit-learn.
        """
        try:
            import sklearn.ensemble  # noqa: F401 - loads OpenMP now, or `fit` would find no threads to limit
        except ImportError as error:
            raise ValueError("regmix needs scikit-learn: pip install 'cuvee[trees]'.") from error
        return super().fit(runs)

    def fit_surface(self, weights: Floats, metrics: Floats) -> Surface:
        from sklearn.ensemble import HistGradientBoostingRegressor

        leaf = MIN_SAMPLES_LEAF if len(weights) >= FEW_RUNS else MIN_SAMPLES_LEAF_OF_FEW
        trees = [
            HistGradientBoostingRegressor(
                learning_rate=self.learning_rate,
                max_iter=self.n_trees,
                min_samples_leaf=leaf,
                early_stopping=False,
                random_state=self.seed,
            )
            for _ in metrics.T
        ]
        for tree, y in zip(trees, metrics.T, strict=True):
            tree.fit(weights, y)

        def surface(w: Floats) -> Floats:
            with threadpool_limits(1):
                return np.stack([tree.predict(w) for tree in trees], axis=1)

        return surface
