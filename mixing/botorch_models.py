"""Our Gaussian processes as BoTorch models, for its acquisition functions. Needs `cuvee[search]`.

The only module of this folder that knows torch: imported where a model is asked for.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .gaussian_process import LOG_OFFSET, GaussianProcessMixer
from .mixer import Mixer
from .multi_fidelity import MultiFidelityMixer
from .objective import Objective
from .region import Loss, Region

try:
    with warnings.catch_warnings():  # its packages warn of each other's old names
        warnings.simplefilter("ignore")
        import torch
        from botorch.acquisition.logei import qLogNoisyExpectedImprovement
        from botorch.acquisition.objective import GenericMCObjective
        from botorch.models import ModelListGP, SingleTaskGP
        from botorch.sampling.normal import SobolQMCNormalSampler
        from gpytorch.kernels import Kernel
        from gpytorch.means import Mean
except ImportError as error:
    raise ValueError("BoTorch's acquisition functions need botorch: pip install 'cuvee[search]'.") from error

Floats = NDArray[np.float64]

N_SAMPLES = 64
SQRT5 = 5.0**0.5
LOWEST = 1e-9  # of a weight under a square root that has to have a derivative


def to_botorch(mixer: Mixer) -> Any:
    """A ModelListGP with one process per metric, of raw weights (K,), at the mixer's target fidelity.

    Hyperparameters are those of our fit and are not trained again. Posterior means and variances of the
    expected metrics are the mixer's, up to rounding; its metrics are independent of one another here. Where
    a floor was learned, the model is of the logarithm above it; `unwarped` makes metrics of its samples.

    For a `MultiFidelityMixer`, a model's input is (weights, index of the fidelity); see `at_target`.

    Raises:
        ValueError: the mixer is no Gaussian process, or has a trend, which a BoTorch model cannot hold.
    """
    if isinstance(mixer, GaussianProcessMixer):
        runs, metrics = mixer.runs, mixer.runs.metrics
        at = np.zeros(runs.n_runs, dtype=np.int64)
    elif isinstance(mixer, MultiFidelityMixer) and mixer.trend is None:
        runs, metrics = mixer.table, mixer.table.metrics
        at = mixer.fidelity_index
    else:
        raise ValueError(
            f"acquisition 'botorch' needs a Gaussian process without a trend, found {type(mixer).__name__}; "
            "take 'noisy_ei', 'mean' or 'thompson', which work with any mixer."
        )
    inputs = torch.from_numpy(np.column_stack([runs.weights, at]))
    models = []
    processes: Sequence[Any] = mixer.processes
    for j, process in enumerate(processes):
        kernel = _ProcessKernel(process, mixer.transform)
        noise = torch.from_numpy(process.noise * (process.std * process.spread) ** 2)
        with warnings.catch_warnings():  # standardised data are advised; ours are standardised in the kernel
            warnings.simplefilter("ignore")
            model = SingleTaskGP(
                inputs,
                torch.from_numpy(process.floor.warped(metrics[:, j : j + 1]).copy()),
                noise[:, None],
                covar_module=kernel,
                mean_module=_LevelMean(process),
                outcome_transform=None,
                input_transform=None,
            )
        models.append(model.eval())
    return ModelListGP(*models).requires_grad_(False)


def at_target(mixer: Mixer, weights: Any) -> Any:
    """Inputs of the models of `to_botorch` for weights (..., K) at the mixer's target."""
    index = mixer.target_index if isinstance(mixer, MultiFidelityMixer) else 0
    return torch.cat([weights, torch.full_like(weights[..., :1], index)], dim=-1)


def unwarped(mixer: GaussianProcessMixer | MultiFidelityMixer, samples: Any) -> Any:
    """Metrics (..., J) of samples of `to_botorch`'s models: `Floor.unwarped`."""
    processes: Sequence[Any] = mixer.processes
    columns = []
    for process, values in zip(processes, samples.unbind(dim=-1), strict=True):
        if process.floor.value is not None:
            inside = values.clamp_max(process.floor.top)
            values = process.floor.value + inside.exp() * (1 + values - inside)
        columns.append(values)
    return torch.stack(columns, dim=-1)


def noisy_expected_improvement(
    mixer: Mixer, region: Region, objective: Objective, taken: Floats, seed: int
) -> tuple[Loss, Callable[[Floats], Floats]]:
    """Minus BoTorch's qLogNoisyExpectedImprovement of one mixture, and its gradient.

    Args:
        taken: (n_pending, K), BoTorch's X_pending.
    """
    model, names = to_botorch(mixer), mixer.runs.metric_names
    seen = np.vstack([np.unique(region.pull_all(mixer.runs.weights), axis=0), region.centre])
    if objective.expression is not None:
        raise ValueError("acquisition 'botorch' knows no expressions; take 'noisy_ei' or 'thompson'.")
    weights = _weights_of(objective, names)

    def improvement(samples: Any, X: Any = None) -> Any:
        assert isinstance(mixer, GaussianProcessMixer | MultiFidelityMixer)  # or it would have no model
        samples = unwarped(mixer, samples)
        if objective.kind == "worst":
            return -(samples - weights).amax(dim=-1)
        return -(samples @ weights)

    with warnings.catch_warnings():  # no advice on scaled inputs; see to_botorch
        warnings.simplefilter("ignore")
        acquisition = qLogNoisyExpectedImprovement(
            model,
            at_target(mixer, torch.from_numpy(seen)),
            sampler=SobolQMCNormalSampler(torch.Size([N_SAMPLES]), seed=seed),
            objective=GenericMCObjective(improvement),
            X_pending=at_target(mixer, torch.from_numpy(taken)) if len(taken) else None,
            prune_baseline=False,
        )

    def value(w: Any) -> Any:
        return -acquisition(at_target(mixer, w)[:, None, :])

    def loss(w: Floats) -> Floats:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.asarray(value(torch.from_numpy(np.atleast_2d(w))).numpy())

    def gradient(w: Floats) -> Floats:
        x = torch.from_numpy(w.copy()).requires_grad_(True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            (slope,) = torch.autograd.grad(value(x[None]).sum(), x)
        return np.asarray(slope.numpy())

    return loss, gradient


def _weights_of(objective: Objective, names: tuple[str, ...]) -> Any:
    """The objective's weights by metric; the reference values of a worst case."""
    given = objective.by_metric or {}
    if objective.kind == "worst":
        return torch.tensor([given.get(name, 0.0) for name in names], dtype=torch.float64)
    return torch.from_numpy(objective(np.eye(len(names)), names))


class _LevelMean(Mean):  # type: ignore[misc]
    """The metric's mean at the fidelity in the last column."""

    def __init__(self, process: Any) -> None:
        super().__init__()
        self.register_buffer("means", torch.tensor(np.atleast_1d(process.means), dtype=torch.float64))

    def forward(self, inputs: Any) -> Any:
        return self.means[inputs[..., -1].long()]


class _ProcessKernel(Kernel):  # type: ignore[misc]
    """The covariance of one of our processes, in the metric's units, from weights and fidelity index."""

    has_lengthscale = False

    def __init__(self, process: Any, transform: str) -> None:
        super().__init__()
        self.transform = transform
        unit = (process.std * process.spread) ** 2
        coupling, constant = process.couplings()
        for name, array in {
            "centre": process.centre,
            "feature_scale": process.scale,
            "lengthscales": np.exp(process.h.log_lengthscales),
            "coupling": unit * coupling,
            "variances": np.array([process.h.signal, process.h.linear, unit * constant]),
        }.items():
            self.register_buffer(name, torch.tensor(array, dtype=torch.float64))

    def forward(self, x1: Any, x2: Any, diag: bool = False, **_: Any) -> Any:
        """The covariance of rows of x1 and x2, (..., n, m); of equal rows with diag, (..., n)."""
        a, b = self._standardised(x1), self._standardised(x2)
        at_a, at_b = x1[..., -1].long(), x2[..., -1].long()
        if diag:
            return self._covariance(a, b, at_a, at_b)
        a, b, at_a, at_b = a.unsqueeze(-2), b.unsqueeze(-3), at_a.unsqueeze(-1), at_b.unsqueeze(-2)
        return self._covariance(a, b, at_a, at_b)

    def _standardised(self, inputs: Any) -> Any:
        w = inputs[..., :-1].clamp_min(0.0)
        features = (w + LOWEST).sqrt() - LOWEST**0.5 if self.transform == "sqrt" else (w + LOG_OFFSET).log()
        return (features - self.centre) / self.feature_scale

    def _covariance(self, a: Any, b: Any, at_a: Any, at_b: Any) -> Any:
        signal, linear, constant = self.variances
        d2 = ((a - b) / self.lengthscales).square().sum(-1)
        products = ((a * b).sum(-1) + a.sum(-1) * b.sum(-1)) / (2 * a.shape[-1])
        r = SQRT5 * (d2 + 1e-18).sqrt()
        matern = (1 + r + r * r / 3) * (-r).exp()
        own = signal * matern + linear * products
        return self.coupling[at_a, at_b] * own + constant * (at_a == at_b)
