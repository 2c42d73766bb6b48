"""Mixture files: what a loader takes from them, and what they must be."""

import itertools
import json

import numpy as np
import pytest
import yaml

from cuvee.streaming.loader import StreamingLoader
from cuvee.streaming.mixture_file import read_mixture

MIXTURE = {
    "format_version": 1,
    "weights": {"web": 0.75, "wiki": 0.25},
    "max_epochs": {"web": 4.0, "wiki": 2},
    "verdict": "supported",
}


@pytest.fixture
def sources(write_stream):
    return {"web": write_stream("web", 4000), "wiki": write_stream("wiki", 200, first=10_000)}


@pytest.mark.parametrize("name", ["mixture.json", "mixture.yaml"])
def test_a_loader_reads_weights_and_epochs_from_the_file(tmp_path, sources, name):
    path = tmp_path / name
    path.write_text(json.dumps(MIXTURE) if name.endswith("json") else yaml.safe_dump(MIXTURE))
    options = {"sequence_length": 8, "global_batch": 4}
    from_file = StreamingLoader(sources, path, **options)
    given = StreamingLoader(sources, MIXTURE["weights"], max_epochs=MIXTURE["max_epochs"], **options)
    for ours, theirs in itertools.islice(zip(from_file, given, strict=True), 40):
        np.testing.assert_array_equal(ours.input_ids, theirs.input_ids)
    # A quarter of 40 steps of 32 tokens is 320 of wiki's 200: the first epoch is over, the second not yet.
    assert 1 < from_file.stats()["epochs"]["wiki"] <= 2
    assert from_file.state_dict() == given.state_dict()


def test_the_files_epochs_bind_and_an_argument_overrides_them(tmp_path, sources):
    path = tmp_path / "mixture.json"
    path.write_text(json.dumps(MIXTURE | {"max_epochs": {"wiki": 1}}))
    options = {"sequence_length": 8, "global_batch": 4}
    for max_epochs, most in ((None, 1.0), ({"wiki": 1.5}, 1.5)):
        loader = StreamingLoader(sources, str(path), max_epochs=max_epochs, **options)
        for _ in itertools.islice(loader, 80):
            pass
        assert loader.stats()["epochs"]["wiki"] == pytest.approx(most, abs=0.05)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"mixture.json:1: no JSON"),
        ("[1]", "found list; a mixture file has 'weights', by domain"),
        ('{"caps": {}}', "found caps; a mixture file has 'weights'"),
        ('{"weights": {"web": 1}}', "format_version is None, this version reads 1"),
        ('{"format_version": 1, "weights": [1]}', r"weights is \[1\]; it maps each domain to a number"),
        ('{"format_version": 1, "weights": {"web": "1"}}', "weights: 'web' is '1'; a number is needed"),
        ('{"format_version": 1, "weights": {"web": 1}, "max_epochs": 4}', "max_epochs is 4; it maps"),
    ],
)
def test_what_is_no_mixture_file_is_refused(tmp_path, text, message):
    path = tmp_path / "mixture.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_mixture(path)


def test_a_file_that_is_not_there_or_no_yaml_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere.json: cannot read the mixture file"):
        read_mixture(tmp_path / "nowhere.json")
    (tmp_path / "m.yml").write_text("a: [")
    with pytest.raises(ValueError, match=r"m.yml: no YAML"):
        read_mixture(tmp_path / "m.yml")


def test_the_files_domains_are_the_loaders(tmp_path, sources):
    path = tmp_path / "mixture.json"
    path.write_text(json.dumps(MIXTURE | {"weights": {"web": 0.5, "wikis": 0.5}}))
    with pytest.raises(ValueError, match="weights: unknown domain 'wikis'; did you mean 'wiki'"):
        StreamingLoader(sources, path, sequence_length=8, global_batch=4)
