"""Recipes: what is read from them, and what is said about their mistakes."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from cuvee.operators.registry import offered_operators, operators
from cuvee.pipeline.errors import UsageError, UserError
from cuvee.pipeline.installation import BUDGET_BYTES
from cuvee.pipeline.recipe import (
    LoadedRecipe,
    Mix,
    Proxy,
    Reading,
    Recipe,
    RecipeError,
    Tokenize,
    Train,
    load_recipe,
)
from cuvee.pipeline.schema import recipe_schema

MINIMAL = "inputs:\n  - {source: wiki, path: wiki.jsonl}\n"
Load = Callable[..., LoadedRecipe]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    monkeypatch.chdir(tmp_path)

    def load_text(text: str, **options: object) -> LoadedRecipe:
        Path("web.yaml").write_text(dedent(text), encoding="utf-8")
        return load_recipe("web.yaml", **options)

    return load_text


@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Installs a distribution that offers operators through the entry-point group."""
    site = tmp_path / "site"
    monkeypatch.syspath_prepend(site)

    def install(code: str, entry_points: str) -> None:
        info = site / "acme_operators-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-operators\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[cuvee.operators]\n{entry_points}\n")
        (site / "acme_operators.py").write_text(dedent(code))
        offered_operators.cache_clear()

    yield install
    offered_operators.cache_clear()
    sys.modules.pop("acme_operators", None)


SHOUT = """
    from typing import ClassVar
    from pydantic import Field
    from cuvee.operators.base import Map

    class Shout(Map):
        '''Write everything in capitals. Source: nobody.'''

        name = "shout"
        writes = ("text", "shout.n_chars")
        volume: int = Field(11, ge=1, description="how loud")

    class Hush(Map):
        '''Read what Shout wrote.'''

        name = "hush"
        reads = ("text", "shout.n_chars")
        until: int
"""


def test_a_minimal_recipe_takes_every_default(load: Load) -> None:
    recipe = load(MINIMAL).recipe
    assert (recipe.name, recipe.seed, recipe.curate) == ("web", 42, ())
    assert recipe.inputs[0].default_domain == "wiki"
    assert (recipe.tokenize, recipe.mix, recipe.train) == (None, None, None)
    assert recipe.reading.shard_bytes == 32_000_000


def test_a_sections_bare_key_takes_its_defaults(load: Load) -> None:
    recipe = load(MINIMAL + "reading:\ntokenize:\nmix: {proxy: {n_layers: 3}}\ntrain:\n").recipe
    assert recipe.reading == Reading()
    assert recipe.tokenize == Tokenize()
    assert recipe.mix == Mix(proxy=Proxy(n_layers=3))
    assert recipe.train == Train()


def test_a_resolved_recipe_reads_back_as_itself(load: Load) -> None:
    recipe = load(MINIMAL + "curate: [gopher_quality, minhash_dedup: {keep: longest}]\n").recipe
    assert [operator.name for operator in recipe.curate] == ["gopher_quality", "minhash_dedup"]
    again = Recipe.model_validate_json(recipe.model_dump_json(), strict=True)
    assert again == recipe


def test_an_operator_is_a_name_or_a_name_with_parameters(load: Load) -> None:
    bare = load(MINIMAL + "curate: [gopher_quality]\n").recipe.curate[0]
    empty = load(MINIMAL + "curate:\n  - gopher_quality:\n").recipe.curate[0]
    changed = load(MINIMAL + "curate:\n  - gopher_quality: {min_words: 7}\n").recipe.curate[0]
    assert bare == empty
    assert changed == bare.model_copy(update={"min_words": 7})


def test_paths_start_from_the_recipes_folder_and_expand(load: Load, tmp_path: Path) -> None:
    path = "path: [a/*.jsonl, '${DATA}/b', 's3://bucket/c', /d, ~/e]"
    loaded = load(f"inputs:\n  - source: wiki\n    {path}\n", variables={"DATA": "/data"})
    home = str(Path.home())
    expected = (f"{tmp_path}/a/*.jsonl", "/data/b", "s3://bucket/c", "/d", f"{home}/e")
    assert loaded.recipe.inputs[0].path == expected
    assert load(MINIMAL, base="/corpus").recipe.inputs[0].path == ("/corpus/wiki.jsonl",)


def test_operators_find_their_files_from_the_recipes_folder_too(load: Load) -> None:
    curate = "curate:\n  - minhash_dedup: {against: [../old, /elsewhere]}\n"
    (operator,) = load(MINIMAL + curate, base="/corpus/new").recipe.curate
    assert operator.against == ("/corpus/old", "/elsewhere")


@pytest.mark.parametrize(
    ("written", "n_bytes"), [("4096", 4096), ("64MB", 64_000_000), ("1.5GiB", 3 * 2**29), ("2 kB", 2000)]
)
def test_sizes_have_units(load: Load, written: str, n_bytes: int) -> None:
    assert load(f"{MINIMAL}reading: {{shard_bytes: {written}}}\n").recipe.reading.shard_bytes == n_bytes


def test_positions_tell_lines_and_columns(load: Load) -> None:
    loaded = load(MINIMAL + "curate:\n  - gopher_quality\n  - minhash_dedup:\n      keep: longest\n")
    assert loaded.positions["curate",] == (3, 1)
    assert loaded.positions["curate", 1, "minhash_dedup", "keep"] == (6, 7)
    assert loaded.where("curate", 0) == "web.yaml:4: curate.0"
    assert loaded.where("mix", "n_proxies") == "web.yaml:1: mix.n_proxies"
    assert loaded.describe(("inputs", 0, "path"), "nothing there") == (
        "web.yaml:2: inputs.0.path: nothing there\n    2 |   - {source: wiki, path: wiki.jsonl}"
    )


def test_an_error_shows_the_line_and_the_near_match(load: Load) -> None:
    with pytest.raises(RecipeError) as caught:
        load(MINIMAL + "curate:\n  - minhash_dedup:\n      keap: longest\n")
    assert str(caught.value) == (
        "web.yaml:5: curate.0.minhash_dedup.keap: unknown key; did you mean 'keep'?\n"
        "    5 |       keap: longest"
    )
    assert (caught.value.exit_code, isinstance(caught.value, UsageError)) == (2, True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sead: 1", r"web.yaml:3: sead: unknown key; did you mean 'seed'\?"),
        ("zzz: 1", "zzz: unknown key; allowed: name, seed, inputs, reading, curate, tokenize, mix"),
        ("mix: {proxy: {n_layer: 1}}", r"mix.proxy.n_layer: unknown key; did you mean 'n_layers'\?"),
        ("seed: '3'", "seed: found the text '3'; write 3, without quotes"),
        ("seed: 3.5", "seed: found the number 3.5; a whole number is needed"),
        ("seed: -1", "seed: found the number -1; it must be at least 0"),
        ("seed: many", "seed: found the text 'many'; a whole number is needed"),
        ("mix: {n_proxies: 1e1}", "mix.n_proxies: YAML reads 1e1 as text; write 10"),
        ("train: {learning_rate: 1e-3}", "train.learning_rate: YAML reads 1e-3 as text; write 1.0e-3"),
        ("mix: {max_epochs: yes}", "mix.max_epochs: found yes, which YAML reads as true; a number is needed"),
        ("mix: {max_epochs: .inf}", "mix.max_epochs: found the number inf; it must be finite"),
        ("mix: {trust_region: 0}", "mix.trust_region: found the number 0; it must be above 0"),
        ("reading: {max_unreadable_fraction: 2}", "found the number 2; it must be at most 1"),
        ("reading: {on_bad_shard: skipp}", r"'skipp' \(did you mean 'skip'\?\); allowed: fail, skip"),
        ("reading: {shard_bytes: 64 megs}", "found '64 megs'; a size is a number of bytes, or a number with"),
        ("reading: {shard_bytes: 0MB}", "reading.shard_bytes: found .*0.*; it must be at least 1"),
        ("reading: [1]", "reading: found a list; a mapping is needed"),
        ("mix: {proxy: }\ntokenize:", "proxy: found nothing; leave the key out to take the defaults"),
        ("name: no", "name: found no, which YAML reads as false; text is needed: write 'no', in quotes"),
        ("name: 2024", "name: found the number 2024; text is needed: write '2024', in quotes"),
        ("name: a/b", "name: found the text 'a/b'; it must match"),
        ("train: {d_model: 65}", "train: d_model 65 does not split into 2 heads of an even"),
        ("train: {}", "web.yaml:3: train: this needs the section 'mix'; add a line 'mix: {}'"),
        ("mix: {}", "web.yaml:3: mix: this needs the section 'tokenize'; add a line 'tokenize: {}'"),
        ("mix: {objective: median}", "mix.objective: found the text 'median' .*; allowed: mean, worst"),
        ("mix: {objective: {wiki: 0}}", "mix.objective.wiki: found the number 0; it must be above 0"),
        ("mix: {objective: {wikki: 1}}", r"no input has the domain 'wikki'; did you mean 'wiki'\?"),
        ("tokenize: {tokenizer: t.json, vocab_size: 999}", "tokenize.vocab_size: this belongs to a"),
        ("engine: {address: auto}", "engine.address: the local engine has no address; write 'kind: ray'"),
        ("curate: gopher_quality", "curate: found the text 'gopher_quality'; a list is needed"),
        ("curate: [gopher_qualty]", r"unknown operator 'gopher_qualty'; did you mean 'gopher_quality'\?"),
        ("curate: [7]", "curate.0: found the number 7; an entry is an operator's name, or one name with"),
        ("curate: [{pii: , language: }]", "curate.0: found a mapping of 'pii', 'language'; an entry is"),
        (
            "curate: [gopher_quality: {min_words: '5'}]",
            "gopher_quality.min_words: found the text '5'; write 5",
        ),
        ("curate: [gopher_quality: {min_words: -5}]", "found the number -5; it must be at least 0"),
        ("curate: [language: {keep: [en, no]}]", "keep.1: found no, which YAML reads as false; text is"),
        ("curate: [language: {keep: [english]}]", "curate.0.language.keep: unknown language 'english'"),
        ("curate: [pii, gopher_quality, pii]", "curate.2.pii: this operator stands on line 3 already"),
        ("seed: 1\nseed: 2", "web.yaml:4: seed: this key stands on line 3 already; keep one of the two"),
        ("train: {n_tokens: 500}", "train.n_tokens: 500 tokens are less than one batch of .* = 512; raise"),
        ("on: 1", "on: YAML reads this key as true or false; write it in quotes"),
        ("7: 1", "7: YAML reads this key as a number; write it in quotes"),
    ],
)
def test_a_mistake_is_told_with_its_remedy(load: Load, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load(MINIMAL + text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path: a.txt", "inputs.0.source: this key is needed and missing: name of this input"),
        ("source: a", "web.yaml:2: inputs.0.path: this key is needed and missing: files to read"),
        ("{source: a, path: 3}", "inputs.0.path: found the number 3; text or a list of texts is needed"),
        ("{source: a, path: []}", "inputs.0.path: found none; at least 1 is needed"),
        ("{source: a, path: '${NOWHERE}/a'}", r"inputs.0.path: \$\{NOWHERE\} is not set in the environment"),
        ("{source: a, path: a, columns: {titel: b}}", "columns.titel: unknown key; allowed: text, id, url"),
        ("{source: a, path: a, format: text, columns: {text: b}}", "columns: a text file has no columns"),
        ("{source: a, path: a, domain: b, columns: {domain: b}}", "the domain is this constant and a column"),
        ("{source: a, path: a, max_rows: 0}", "max_rows: found the number 0; it must be at least 1"),
        (
            "{source: a, path: a}\n- {source: a, path: b}",
            "inputs.1.source: 'a' is the source on line 2 already",
        ),
    ],
)
def test_a_mistake_in_an_input_is_told(load: Load, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load(f"inputs:\n- {text}\n", variables={})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "web.yaml:1: the file is empty; a recipe has at least 'inputs'"),
        (b"# nothing\n", "the file is empty"),
        (b"- a\n", "a recipe is a mapping with at least the key 'inputs'"),
        (b"name: a\n", "inputs: this key is needed and missing: where documents come from"),
        (b"inputs: []\n", "web.yaml:1: inputs: found none; at least 1 is needed"),
        (b"inputs:\n\t- a\n", "web.yaml:2: a tab in column 1; YAML is indented with spaces"),
        (
            b"inputs: [a\nb: 1\n",
            r"web.yaml:2: this is not YAML: .* \(while parsing a flow sequence, begun on line 1\)",
        ),
        (b"inputs: &a [*a]\n", "web.yaml:1: this is not YAML: an alias that contains itself"),
        (b"a: 1\n---\nb: 2\n", "web.yaml:2: this is not YAML: but found another document"),
        (b"a: !python/object 1\n", "web.yaml:1: this is not YAML: could not determine a constructor"),
        (b"{[a]: 1}\n", "web.yaml:1: this is not YAML: found unhashable key"),
        (b"a: 1\nb: \x07\n", r"web.yaml:2: character U\+0007 is not allowed in YAML; delete it"),
        (b"a: 1\nb: caf\xe9\n", "web.yaml:2: byte 0xE9 at offset 11 is not UTF-8; save the file as UTF-8"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "web.yaml").write_bytes(data)
    with pytest.raises(RecipeError, match=message):
        load_recipe(tmp_path / "web.yaml")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "web.yaml").write_text(MINIMAL)
    with pytest.raises(RecipeError, match=r"/wep.yaml: there is no such file; did you mean .*web.yaml"):
        load_recipe(tmp_path / "wep.yaml")
    with pytest.raises(RecipeError, match="there is no such file, nor a folder"):
        load_recipe(tmp_path / "nowhere" / "web.yaml")
    with pytest.raises(RecipeError, match="cannot be read: is a directory"):
        load_recipe(tmp_path)


def test_all_problems_of_a_file_are_told_at_once_in_the_order_of_lines(load: Load) -> None:
    text = """\
        sead: 3
        inputs:
          - {source: wiki, path: 3}
          - {source: wiki}
        curate:
          - gopher_qualty
          - minhash_dedup: {keep: shortest, seed: x}
          - pii
          - pii
        reading: {shard_bytes: 1 byte}
        reading: {max_unreadable_fraction: -1}
    """
    with pytest.raises(RecipeError) as caught:
        load(text)
    lines = [int(line) for line in re.findall(r"^web.yaml:(\d+):", str(caught.value), re.MULTILINE)]
    assert lines == [1, 3, 4, 4, 6, 7, 7, 9, 11, 11]
    assert len(caught.value.problems) == 10


def test_weights_may_name_domains_that_an_operator_finds(load: Load) -> None:
    mix = "tokenize: {}\nmix: {objective: {wine-cask: 1.0}}\n"
    with pytest.raises(RecipeError, match="no input has the domain 'wine-cask'"):
        load(MINIMAL + mix)
    assert load(MINIMAL + "curate: [cluster]\n" + mix).recipe.mix is not None


def test_values_that_a_merge_brings_are_located(load: Load) -> None:
    text = """\
        inputs:
          - &wiki
            source: wiki
            path: wiki.jsonl
            max_rows: -1
          - <<: *wiki
            source: books
            max_rows: 5
    """
    with pytest.raises(RecipeError) as caught:
        load(text)
    assert [problem.keys for problem in caught.value.problems] == [("inputs", 0, "max_rows")]


def test_an_operator_of_another_distribution_is_found(
    load: Load, distribution: Callable[[str, str], None]
) -> None:
    distribution(SHOUT, "shout = acme_operators:Shout\nhush = acme_operators:Hush")
    (shout, hush) = load(MINIMAL + "curate: [shout: {volume: 3}, hush: {until: 7}]\n").recipe.curate
    assert (shout.name, shout.model_dump(), hush.model_dump()) == ("shout", {"volume": 3}, {"until": 7})
    with pytest.raises(RecipeError, match=r"curate.0.shout.volum: unknown key; did you mean 'volume'\?"):
        load(MINIMAL + "curate: [shout: {volum: 3}]\n")
    with pytest.raises(RecipeError, match=r"curate.1.hush.until: this key is needed and missing"):
        load(MINIMAL + "curate: [shout, hush]\n")


def test_a_column_is_read_only_below_the_operator_that_writes_it(
    load: Load, distribution: Callable[[str, str], None]
) -> None:
    distribution(SHOUT, "shout = acme_operators:Shout\nhush = acme_operators:Hush")
    with pytest.raises(RecipeError) as caught:
        load(MINIMAL + "curate:\n  - hush: {until: 1}\n  - pii\n  - shout\n")
    assert str(caught.value) == (
        "web.yaml:4: curate.0.hush: reads the column 'shout.n_chars', which 'shout' writes only later, "
        "on line 6; move it above this line\n    4 |   - hush: {until: 1}"
    )
    with pytest.raises(RecipeError, match="which 'shout' writes; add '- shout' above it"):
        load(MINIMAL + "curate: [hush: {until: 1}]\n")


def test_a_column_that_its_operator_does_not_write_is_refused(
    load: Load, distribution: Callable[[str, str], None]
) -> None:
    distribution(SHOUT.replace('"shout.n_chars")\n        volume', '"shout.n_char")\n        volume'),
                 "shout = acme_operators:Shout\nhush = acme_operators:Hush")  # fmt: skip
    with pytest.raises(RecipeError, match=r"which 'shout' does not write; did you mean 'shout.n_char'\?"):
        load(MINIMAL + "curate: [shout, hush: {until: 1}]\n")


def test_a_condition_over_a_column_that_nobody_writes_is_refused(load: Load) -> None:
    with pytest.raises(
        RecipeError, match=r"reads the column 'language.confidence', which 'language' writes; add"
    ):
        load(MINIMAL + "curate: [where: {keep: language.confidence > 0.5}]\n")
    with pytest.raises(
        RecipeError, match=r"which 'language' does not write; did you mean 'language.confidence'"
    ):
        load(MINIMAL + "curate: [language, where: {keep: language.confidense > 0.5}]\n")
    with pytest.raises(RecipeError, match="cannot read this"):
        load(MINIMAL + "curate: [language, where: {keep: language.confidence >}]\n")
    load(MINIMAL + "curate: [language, where: {keep: language.confidence > 0.5}]\n")


def test_columns_of_inputs_may_be_read_by_any_operator(
    load: Load, distribution: Callable[[str, str], None]
) -> None:
    distribution(SHOUT.replace("shout.n_chars", "meta.score"),
                 "hush = acme_operators:Hush")  # fmt: skip
    assert load(MINIMAL + "curate: [hush: {until: 1}]\n").recipe.curate[0].reads == ("text", "meta.score")


def test_the_schema_knows_every_operator_and_its_parameters(distribution: Callable[[str, str], None]) -> None:
    distribution(SHOUT, "shout = acme_operators:Shout\nhush = acme_operators:Hush")
    schema = recipe_schema()
    json.dumps(schema)
    recipe = schema["$defs"]["Recipe"]
    entries = recipe["properties"]["curate"]["items"]["anyOf"]
    assert recipe["required"] == ["inputs"]
    bare_names = [entry["const"] for entry in entries if "const" in entry]
    needs_one = ("decontaminate", "hush", "random_calibrated", "where")
    assert bare_names == [name for name in operators() if name not in needs_one]
    assert entries[-1]["required"] == ["shout"]
    assert schema["$defs"]["Shout"]["properties"]["volume"]["minimum"] == 1


def test_every_key_of_a_recipe_is_described() -> None:
    sections = recipe_schema()["$defs"]
    assert not [name for name, model in sections.items() if "description" not in model]
    undescribed = [
        f"{section}.{key}"
        for section, model in sections.items()
        for key, value in model.get("properties", {}).items()
        if "description" not in value and "$ref" not in value
    ]
    assert undescribed == []


def test_the_packaged_recipe_reads_every_domain_of_the_installation(tmp_path: Path) -> None:
    path = Path(sys.modules["cuvee.pipeline.recipe"].__file__ or "").with_name("demo.yaml")
    recipe = load_recipe(path, base=tmp_path).recipe
    assert [entry.source for entry in recipe.inputs] == list(BUDGET_BYTES)
    assert all(entry.path == (str(tmp_path / f"{entry.source}.jsonl"),) for entry in recipe.inputs)


def test_errors_for_people_are_value_errors_with_exit_codes() -> None:
    assert issubclass(UserError, ValueError)
    assert UserError("disk full", 4).exit_code == 4
    assert UserError.exit_code == 1
