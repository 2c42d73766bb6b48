"""A search continues with the same trials wherever it was killed, and spends its budget by the rungs."""

import json
from pathlib import Path

import numpy as np
import pytest

from cuvee.mixing import Fidelity, Objective, SearchArguments, SearchJournal
from cuvee.mixing.design import kl_divergence, sample_design
from cuvee.mixing.proposals import propose
from cuvee.mixing.search import Search, Trial
from cuvee.mixing.search_arguments import ladder

DOMAINS = ("code", "web", "wiki")
NATURAL = (0.2, 0.6, 0.2)
RUNGS = (Fidelity(10, 300), Fidelity(10, 1000), Fidelity(40, 1000))
CAPS = (0.5, 1.0, 0.45)


def _arguments(**changed) -> SearchArguments:
    given = {
        "domain_names": DOMAINS,
        "natural": NATURAL,
        "fidelities": RUNGS,
        "budget": 3.0,
        "caps": CAPS,
        "trust_region": 1.0,
        "n_initial": 8,
        "n_replicates": 2,
        "seed": 3,
    }
    return SearchArguments(**{**given, **changed})


def _losses(trial: Trial) -> dict[str, float]:
    """Two losses whose spreads shrink from rung to rung, each by a factor of its own."""
    w, rng = np.sqrt(trial.weights), np.random.default_rng([trial.seed, trial.number])
    code = 3 - 0.3 * trial.rung - w @ [0.9, 0.2, 0.1] * 0.8**trial.rung
    wiki = 3 - 0.2 * trial.rung - w @ [0.1, 0.3, 0.8]
    noise = 0.003 * rng.standard_normal(2)
    return {"code": float(code + noise[0]), "wiki": float(wiki + noise[1])}


def _optimum() -> np.ndarray:
    """Of the mean at the target: -sum g_i sqrt(w_i) is least at w_i proportional to g_i squared."""
    g = 0.64 * np.array([0.9, 0.2, 0.1]) + np.array([0.1, 0.3, 0.8])
    return g**2 / np.sum(g**2)


def _continue(path: Path, n_parallel: int = 2) -> SearchJournal:
    """Up to n_parallel trials at a time; the first one asked for ends first. Trial 4 fails."""
    journal = SearchJournal(path, _arguments())
    while True:
        while len(journal.search.pending) < n_parallel and journal.ask() is not None:
            pass
        if not journal.search.pending:
            return journal
        trial = journal.search.pending[0]
        if trial.number == 4:
            journal.fail(4, "diverged")
        else:
            journal.tell(trial.number, _losses(trial))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return _continue(tmp_path_factory.mktemp("search") / "journal.jsonl")


def test_killed_at_every_record_a_search_goes_on_with_the_same_trials(undisturbed, tmp_path):
    content = undisturbed.path.read_bytes()
    lines = content.splitlines(keepends=True)
    for n in range(len(lines)):
        kept = b"".join(lines[:n])
        half = lines[n][: (7 * n) % len(lines[n])]  # a line in any stage of being written
        path = tmp_path / f"{n}.jsonl"
        path.write_bytes(kept + half)
        journal = SearchJournal(path, _arguments())
        if json.loads(lines[n])["record"] == "trial":
            journal.ask()
            assert path.read_bytes() == kept + lines[n]
        else:
            assert path.read_bytes() == (kept or lines[0])


def test_killed_in_the_middle_a_search_ends_with_the_same_bytes(undisturbed, tmp_path):
    content = undisturbed.path.read_bytes()
    path = tmp_path / "journal.jsonl"
    path.write_bytes(content[: int(0.8 * len(content))])
    assert _continue(path).path.read_bytes() == content


def test_results_in_another_order_lead_to_the_same_next_trial():
    results = {}
    searches = [Search(_arguments()), Search(_arguments())]
    for search in searches:
        for _ in range(9):
            search.ask()
            results[search.trials[-1].number] = _losses(search.trials[-1])
    for number in range(7):
        searches[0].tell(number, results[number])
        searches[1].tell(6 - number, results[6 - number])
    first, second = (search.ask() for search in searches)
    assert first == second


def test_the_budget_is_spent_equally_by_the_rungs_and_never_exceeded(undisturbed):
    search = undisturbed.search
    assert search.is_finished
    assert search.spent <= 3.0 + 1e-9
    spent = [sum(search.arguments.relative_costs[r] for t in search.trials if t.rung == r) for r in range(3)]
    assert spent[2] >= 1.0
    assert spent[0] <= 1.0 + 1e-9
    assert 3.0 - search.spent < min(1.0, 2 * search.arguments.relative_costs[1])


def test_every_mixture_above_the_first_rung_has_run_below(undisturbed):
    trials, losses = undisturbed.search.trials, undisturbed.search.losses
    for trial in trials:
        if trial.rung:
            below = [t for t in trials if t.rung == trial.rung - 1 and t.weights == trial.weights]
            assert trial.origin == "promotion"
            assert any(t.number < trial.number and t.number in losses for t in below)
    for rung in (0, 1, 2):
        assert next(t for t in trials if t.rung == rung).weights == trials[0].weights


def test_every_trial_obeys_caps_and_trust_region_and_no_weight_is_tiny(undisturbed):
    for trial in undisturbed.search.trials:
        w = np.array(trial.weights)
        assert abs(w.sum() - 1) <= 1e-9
        assert (w <= np.array(CAPS) + 1e-9).all()
        assert kl_divergence(w, NATURAL) <= 1.0 + 1e-9


def test_every_second_proposal_is_where_the_posterior_mean_is_best(undisturbed):
    search, n_proposals, is_mean = Search(_arguments()), 0, []
    for line in undisturbed.path.read_text().splitlines()[1:]:
        record = json.loads(line)
        if record.get("origin") == "proposal":
            mixer, region, taken = (
                search.surrogate(),
                search.arguments.region,
                [t.weights for t in search.trials],
            )
            seed = search._draw_seed()
            best = propose(mixer, 1, region, pending=np.unique(taken, axis=0), acquisition="mean", seed=seed)
            is_mean.append(np.array_equal(best[0], list(record["weights"].values())))
            n_proposals += 1
        search.replay(record)
    assert n_proposals >= 4
    assert is_mean == [i % 2 == 1 for i in range(n_proposals)]


def test_asking_whether_it_is_finished_plans_nothing_twice(monkeypatch):
    search, planned, plan = Search(_arguments()), [], Search._plan
    monkeypatch.setattr(Search, "_plan", lambda self: planned.append(len(self.trials)) or plan(self))
    for _ in range(3):
        assert not search.is_finished
        search.ask()
        search.tell(len(search.trials) - 1, _losses(search.trials[-1]))
    assert planned == [0, 1, 2]


def test_the_natural_mixture_is_replicated_with_other_seeds(undisturbed):
    first = undisturbed.search.trials[0]
    replicates = [t for t in undisturbed.search.trials if t.rung == 0 and t.weights == first.weights]
    assert [t.seed for t in replicates] == [3, 4]


def test_the_search_recommends_what_is_best_at_the_target(undisturbed):
    found = undisturbed.search.recommend()
    weights = np.array([found.candidate[name] for name in DOMAINS])
    at = [_losses(Trial(0, tuple(w), 2, 0, "design")) for w in (NATURAL, weights, _optimum())]
    natural, ours, best = (np.mean(list(losses.values())) for losses in at)
    assert found.verdict == "supported"
    assert natural - ours > 0.7 * (natural - best)


def test_a_failed_run_is_not_repeated_and_said(undisturbed):
    search = undisturbed.search
    failed = search.trials[4]
    assert not any(t.weights == failed.weights for t in search.trials[5:])
    assert search.runs().notes == ("run 4 was left out: diverged.",)


def test_a_journal_with_other_arguments_is_refused_with_the_field(undisturbed):
    with pytest.raises(ValueError, match=r"journal.jsonl:1: trust_region is 1.0, given now is 0.5"):
        SearchJournal(undisturbed.path, _arguments(trust_region=0.5))


def test_a_broken_line_is_told_with_its_number(tmp_path):
    path = tmp_path / "j.jsonl"
    SearchJournal(path, _arguments()).ask()
    path.write_bytes(path.read_bytes() + b'{"record": "result", "trial": 7, "losses": {"code": 1}}\n')
    with pytest.raises(ValueError, match=r"j.jsonl:3: trial 7: the search has asked for 1 trials"):
        SearchJournal(path)


@pytest.mark.parametrize(
    ("losses", "told"),
    [
        ({"code": float("nan"), "wiki": 2.0}, "each a finite number"),
        ({"code": 2.0}, "code, wiki are needed"),
        ({"code": 9.0, "wiki": 9.0}, "trial 0 has another result already"),
    ],
)
def test_a_result_that_cannot_be_is_refused(losses, told):
    search = Search(_arguments())
    search.ask()
    search.ask()
    search.tell(0, {"code": 1.0, "wiki": 2.0})
    assert search.tell(0, {"code": 1.0, "wiki": 2.0}) is None
    with pytest.raises(ValueError, match=told):
        search.tell(0 if "another" in told else 1, losses)


def test_arguments_that_cannot_be_are_refused_all_at_once():
    with pytest.raises(ValueError, match=r"(?s)natural: found 2 values for 3 domains.*n_replicates: 0;"):
        _arguments(natural=(0.5, 0.5), n_replicates=0)
    with pytest.raises(ValueError, match=r"costs are 3.33, 1; rungs go from the cheapest to the target"):
        _arguments(fidelities=(RUNGS[1], RUNGS[0]))
    with pytest.raises(ValueError, match=r"budget: 0.5 runs at the target; .* cost 1.9"):
        _arguments(budget=0.5)


def _from_a_pool(n_mixtures: int) -> Search:
    """A search among the first mixtures of a design, which has ended."""
    region = _arguments().region
    pool = region.pull_all(sample_design(region.centre, n_mixtures, seed=1, caps=region.upper))
    search = Search(_arguments(mixtures=tuple(map(tuple, pool.tolist())), n_replicates=1))
    while search.ask() is not None:
        search.tell(len(search.trials) - 1, _losses(search.trials[-1]))
    return search


def test_a_search_among_given_mixtures_runs_and_recommends_no_other():
    search = _from_a_pool(20)
    pool = set(search.arguments.mixtures)
    on = [[t.weights for t in search.trials if t.rung == rung] for rung in range(3)]
    assert search.is_finished
    assert all(len(set(weights)) == len(weights) for weights in on)
    assert set(on[0]) < pool
    nearest = min(pool, key=lambda w: kl_divergence(w, search.arguments.region.centre))
    assert search.trials[0].weights == nearest
    assert tuple(search.recommend().candidate.values()) in pool


def test_what_a_small_pool_leaves_of_the_money_goes_to_larger_runs():
    search, wide = _from_a_pool(9), _from_a_pool(60)
    assert [sum(t.rung == 0 for t in s.trials) for s in (search, wide)] == [9, 13]
    # Rungs cost .075, .25 and 1: of the first two shares, 2, the cheap runs leave five or four of the next.
    assert [sum(t.rung == 1 for t in s.trials) for s in (search, wide)] == [5, 4]


@pytest.mark.parametrize(
    ("mixtures", "told"),
    [
        (((0.2, 0.6, 0.2),), "found 1 different ones, and 8 are drawn before a model proposes"),
        (
            ((0.2, 0.6, 0.1),),
            r"mixtures: row 0 is \[0.2, 0.6, 0.1\]; a mixture has 3 weights that sum to one",
        ),
        (((0.2, 0.6, 0.2), (0.9, 0.1, 0.0)), "row 1 is outside the caps or the trust region"),
    ],
)
def test_mixtures_that_cannot_all_run_are_refused(mixtures, told):
    with pytest.raises(ValueError, match=told):
        _arguments(mixtures=mixtures)


def _with_version(path: Path, version: int) -> Path:
    SearchJournal(path, _arguments()).ask()
    path.write_text(path.read_text().replace('"version": 2', f'"version": {version}'))
    return path


def test_a_journal_of_the_first_version_goes_on_and_says_so(tmp_path):
    path = _with_version(tmp_path / "j.jsonl", 1)
    path.write_text(path.read_text().replace(', "mixtures": null', ""))
    journal = SearchJournal(path, _arguments())
    assert len(journal.search.trials) == 1
    assert "began with version 1 of the rules" in journal.notes[0]
    assert SearchJournal(tmp_path / "new.jsonl", _arguments()).notes == ()


def test_a_journal_of_a_later_version_is_refused(tmp_path):
    path = _with_version(tmp_path / "j.jsonl", 3)
    with pytest.raises(ValueError, match=r"of version 3; a journal starts with 'arguments' of .* 1, 2"):
        SearchJournal(path, _arguments())


def test_a_small_budget_leaves_two_thirds_of_the_first_rung_to_proposals():
    names = tuple(map(str, range(40)))
    given = {
        "domain_names": names,
        "natural": (1 / 40,) * 40,
        "fidelities": RUNGS[2:],
        "caps": None,
        "n_initial": None,
    }
    assert [_arguments(budget=runs, **given).n_drawn for runs in (7.0, 25.0, 97.0)] == [4, 8, 24]
    assert _arguments(**{**given, "budget": 25.0, "n_initial": 16}).n_drawn == 16


def test_arguments_survive_their_record():
    pool = tuple((0.2 + 0.01 * i, 0.6 - 0.01 * i, 0.2) for i in range(8))
    weighted = Objective("weighted", {"code": 2.0})
    arguments = _arguments(objective=weighted, costs=(1.0, 3.0, 12.0), mixtures=pool)
    again = SearchArguments.from_record(json.loads(json.dumps(arguments.to_record())))
    assert again == arguments


def test_a_ladder_raises_tokens_before_size():
    assert ladder([40, 10], 1000) == (RUNGS[0], RUNGS[1], Fidelity(40, 300), RUNGS[2])


@pytest.mark.parametrize("foreign", [b"domain,tokens\nweb,5\nwiki,5", b"notes"])
def test_a_file_that_is_no_journal_is_refused_and_stays_as_it_is(tmp_path, foreign):
    path = tmp_path / "domains.csv"
    path.write_bytes(foreign)
    with pytest.raises(ValueError, match=r"domains.csv:1: this is no JSON"):
        SearchJournal(path, _arguments())
    assert path.read_bytes() == foreign


def test_a_last_line_that_an_editor_left_without_newline_counts(undisturbed, tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(undisturbed.path.read_bytes().rstrip(b"\n"))
    journal = SearchJournal(path)
    assert len(journal.search.losses) == len(undisturbed.search.losses)
    assert path.read_bytes() == undisturbed.path.read_bytes()


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("arguments", {"natural": [0.5, 0.5, 0.5]}, r":1: natural: .* weights are not negative and sum"),
        ("arguments", {"caps": [0.1, 0.1, 0.1]}, r":1: caps: .* sum to one or more"),
        ("arguments", {"seed": None}, r":1: seed: None; a whole number"),
        ("arguments", {"trust_region": float("nan")}, r":1: trust_region: nan; a finite number > 0"),
        ("arguments", {"budget": float("nan")}, r":1: budget: nan; a finite number"),
        (
            "trial",
            {"weights": [0.1, 0.2, 0.7]},
            r":2: trial 0 has the weights \[0.1, 0.2, 0.7\], not by domain",
        ),
        ("trial", {"n_tokens": 5}, r":2: trial 0 has Fidelity\(n_parameters=\d+, n_tokens=5\)"),
        ("trial", {"seed": "a"}, r":2: trial 0 has .* and seed 'a'"),
        ("result", {"losses": [1, 2]}, r"trial 0 has the losses \[1, 2\], not by metric"),
        (
            "result",
            {"losses": {"wiki": "x"}},
            r"trial 0 has the losses {'wiki': 'x'}; .* each a finite number",
        ),
        ("result", {"trial": 0.5}, r"trial 0.5: the search has asked for"),
    ],
)
def test_a_journal_edited_by_hand_is_refused_at_the_line_that_is_wrong(
    undisturbed, tmp_path, kind, changes, message
):
    records = [json.loads(line) for line in undisturbed.path.read_bytes().splitlines()]
    next(record for record in records if record["record"] == kind).update(changes)
    path = tmp_path / "journal.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    with pytest.raises(ValueError, match=message):
        SearchJournal(path)


def test_a_trials_weights_edited_by_hand_are_refused(undisturbed, tmp_path):
    content = undisturbed.path.read_text().splitlines(keepends=True)
    trial = json.loads(content[1])
    trial["weights"][next(iter(trial["weights"]))] += 0.5
    (tmp_path / "journal.jsonl").write_text(content[0] + json.dumps(trial) + "\n")
    with pytest.raises(
        ValueError, match=r":2: trial 0 has the weights .* a mixture is not negative and sums"
    ):
        SearchJournal(tmp_path / "journal.jsonl")
