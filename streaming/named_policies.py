"""Policies by name, as a loader's argument or a recipe gives them."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from .policies import Ado, Floats, MirrorDescent, Policy
from .published_policies import Aioli, Exp3S, GroupDro, Odm, Schedule, SkillIt
from .weights import check_names

POLICIES: dict[str, Callable[..., Policy]] = {
    "mirror_descent": MirrorDescent,
    "ado": Ado,
    "odm_paper": partial(Odm, form="paper"),
    "odm_released": partial(Odm, form="released"),
    "exp3s": Exp3S,
    "group_dro": GroupDro,
    "skill_it": SkillIt,
    "aioli": Aioli,
    "schedule": Schedule,
}
# Parameters that are a number for each domain, or for each pair of them.
BY_DOMAIN, BY_PAIR = ("reference",), ("graph",)


def load_policy(
    policy: str | Callable[[Floats, Sequence[str]], Policy],
    prior: Floats,
    domains: Sequence[str],
    parameters: Mapping[str, Any],
) -> Policy:
    """The policy of a name, or what a function makes of the prior and the domains.

    Args:
        domains: those of the prior, in its order.
        parameters: of a named policy. `reference` is a mapping from domain to number, `graph` one from domain
            to such a mapping (0 where nothing is said), `points` of a schedule a list of (report, weights).
    Raises:
        ValueError: an unknown name, parameter or domain, a missing one, or a value that the policy refuses.

    >>> reference = {"web": 3.0, "code": 2.0}
    >>> load_policy("group_dro", np.array([0.4, 0.6]), ["code", "web"], {"reference": reference}).reference
    array([2., 3.])
    """
    if not isinstance(policy, str):
        if parameters:
            raise ValueError("policy: parameters are for a named policy; give them to the function")
        if not callable(policy):
            raise ValueError(
                f"policy is a {type(policy).__name__}; it must be a name or a function from the prior and "
                "the domains' names to a Policy"
            )
        made = policy(prior, domains)
        if not isinstance(made, Policy):
            raise ValueError(
                f"policy: the function gave a {type(made).__name__}, no Policy; return one of policies.py, "
                "or a subclass"
            )
        return made
    check_names("policy", [policy], POLICIES, "policy")
    make = POLICIES[policy]
    known = _parameters(make)
    try:
        check_names(f"policy {policy!r}", parameters, known, "parameter")
    except ValueError:
        if known:
            raise
        raise ValueError(f"policy {policy!r}: it has no parameters; leave out {sorted(parameters)}") from None
    for name, parameter in known.items():
        if parameter.default is inspect.Parameter.empty and name not in parameters:
            raise ValueError(f"policy {policy!r}: it needs {name!r}, which has no default")
    return make(prior, **{name: _in_order(name, parameters[name], domains) for name in parameters})


def _parameters(make: Callable[..., Policy]) -> dict[str, inspect.Parameter]:
    fixed = set(make.keywords) if isinstance(make, partial) else set()
    found = inspect.signature(make.func if isinstance(make, partial) else make).parameters
    return {name: found[name] for name in found if name != "prior" and name not in fixed}


def _in_order(name: str, value: Any, domains: Sequence[str]) -> Any:
    """A mapping by domain as an array in the order of the domains; all else as it is."""
    if name in BY_DOMAIN and isinstance(value, Mapping):
        return _vector(name, value, domains)
    if name in BY_PAIR and isinstance(value, Mapping):
        check_names(f"policy: {name}", value, domains)
        empty: Mapping[str, float] = {}
        rows = [value.get(one, empty) for one in domains]
        for row in rows:
            check_names(f"policy: {name}", row, domains)
        return np.array([[float(row.get(other, 0)) for other in domains] for row in rows])
    if name == "points":
        return [
            (at, _vector(name, weights, domains) if isinstance(weights, Mapping) else weights)
            for at, weights in value
        ]
    return tuple(value) if isinstance(value, list) and name == "half_lives" else value


def _vector(name: str, values: Mapping[str, float], domains: Sequence[str]) -> Floats:
    check_names(f"policy: {name}", values, domains)
    if missing := sorted(set(domains) - set(values)):
        raise ValueError(f"policy: {name}: none for {', '.join(map(repr, missing))}; give each domain one")
    return np.array([float(values[domain]) for domain in domains])
