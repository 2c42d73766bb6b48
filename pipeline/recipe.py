"""The recipe: what a run reads, how it curates, tokenizes, mixes and trains. One YAML file, one frozen model.

`load_recipe` reads a file and tells everything that is wrong with it at once.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    Tag,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from ..operators.base import Operator, refusal
from ..operators.registry import UnknownOperatorError, find_operator
from ..streaming.named_policies import POLICIES
from ..streaming.selectors import SELECTORS
from .located_yaml import Keys, LocatedYaml, Position, Problem, RecipeError, found, near, read_yaml
from .recipe_checks import cross_checks
from .recipe_problems import explain

__all__ = ["LoadedRecipe", "Recipe", "RecipeError", "load_recipe"]

BYTES_IN = {"B": 1} | {
    f"{prefix}{unit}": base**power
    for power, prefix in enumerate("KMGT", start=1)
    for unit, base in (("B", 1000), ("iB", 1024))
}
SECTIONS = ("reading", "tokenize", "mix", "train", "engine")
UNWEIGHTED = ("random", "hard_batches", "stochastic", "seta", "multistage")
"""Selectors whose rows all weigh alike."""
DocumentColumn = Literal["text", "id", "url", "lang", "domain"]


def parse_bytes(size: object) -> object:
    """A size in bytes from an integer or from a number with a unit.

    >>> parse_bytes("64MB"), parse_bytes("1.5 GiB"), parse_bytes(4096)
    (64000000, 1610612736, 4096)
    """
    if not isinstance(size, str):
        return size
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]?i?B)", size.strip().replace("kB", "KB"))
    if match is None or match[2] not in BYTES_IN:
        raise refusal(
            f"found {size!r}; a size is a number of bytes, or a number with a unit such as 64MB or 1.5GiB"
        )
    return round(float(match[1]) * BYTES_IN[match[2]])


def expand_path(path: object, info: ValidationInfo) -> object:
    """`path` with ``${NAME}`` and ``~`` expanded, and, unless it is a URI, absolute from the recipe's folder.

    The context of the validation holds `base` and `variables`; without a context the path stays as it is.
    """
    if not isinstance(path, str) or info.context is None:
        return path
    variables: Mapping[str, str] = info.context["variables"]
    missing = [name for name in re.findall(r"\$\{(\w+)\}", path) if name not in variables]
    if missing:
        names = " and ".join(f"${{{name}}}" for name in missing)
        raise refusal(f"{names} is not set in the environment; set it, or write the path out")
    path = re.sub(r"\$\{(\w+)\}", lambda match: variables[match[1]], path)
    if "://" in path:
        return path
    return os.path.abspath(Path(info.context["base"], os.path.expanduser(path)))


def as_list(value: object) -> object:
    """A list, where one of a single entry may be written as that entry."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list | tuple):
        raise refusal(f"found {found(value)}; text or a list of texts is needed")
    return tuple(value)


def parse_operator(entry: object, info: ValidationInfo | None) -> Operator:
    """An operator from its bare name, or from a mapping of its name to its parameters.

    Files among them are found from the folder that the context of `info` names; without one they stay as
    they are. (`info` has no default: pydantic would not pass it then.)

    Raises:
        PydanticCustomError: `entry` is neither, or nobody provides such an operator.
        ValidationError: the parameters are wrong; locations begin with the operator's name.
    """
    if isinstance(entry, Operator):
        return entry
    if isinstance(entry, str):
        entry = {entry: {}}
    if not (isinstance(entry, dict) and len(entry) == 1):
        kind = f"a mapping of {', '.join(map(repr, entry))}" if isinstance(entry, dict) else found(entry)
        raise refusal(
            f"found {kind}; an entry is an operator's name, or one name with its parameters below it"
        )
    name, parameters = next(iter(entry.items()))
    try:
        operator = find_operator(name)
    except UnknownOperatorError as error:
        raise refusal(str(error)) from None
    # As JSON, strict refuses text for numbers, yet takes a list for a tuple. The dictionary puts the
    # operator's name into the locations of errors. "name:" with nothing below it is all defaults.
    text = json.dumps({name: {} if parameters is None else parameters})
    context = None if info is None else info.context
    return TypeAdapter(dict[str, operator]).validate_json(text, strict=True, context=context)[name]  # type: ignore[valid-type]


ByteSize = Annotated[
    int,
    BeforeValidator(parse_bytes),
    Field(ge=1),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1},
                {"type": "string", "pattern": r"^\d+(\.\d+)? ?([kKMGT]i?)?B$"},
            ]
        }
    ),
]
LocatedPath = Annotated[str, Field(min_length=1), BeforeValidator(expand_path)]
ONE_OR_MORE = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
PathList = Annotated[
    tuple[LocatedPath, ...], Field(min_length=1), BeforeValidator(as_list), WithJsonSchema(ONE_OR_MORE)
]
Patterns = Annotated[tuple[str, ...], BeforeValidator(as_list), WithJsonSchema(ONE_OR_MORE)]
Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Curation = Annotated[
    Operator,
    # pydantic passes the context to functions that require it: an argument with a default gets none.
    BeforeValidator(lambda entry, info: parse_operator(entry, info)),
    PlainSerializer(lambda operator: {operator.name: operator.model_dump(mode="json")}),
    WithJsonSchema({}),  # schema.py puts all operators of the installation here
]
Objective = Annotated[
    Annotated[Literal["mean", "worst", "natural"], Tag("name")]
    | Annotated[dict[str, PositiveFloat], Field(min_length=1), Tag("weights")],
    Discriminator(lambda value: "weights" if isinstance(value, dict) else "name"),
]


class Section(BaseModel):
    """A mapping of the recipe: no other keys than these."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Input(Section):
    """One source of documents: files of one kind, with the domain they belong to."""

    source: str = Field(min_length=1, description="Name of this input, unique in the recipe.")
    path: PathList = Field(
        description="Files to read: a path, a glob or a URI (s3://, gs://, hf://), or a list of them. "
        "Relative to the recipe's folder; ${NAME} and ~ are expanded."
    )
    exclude: Patterns = Field((), description="Globs of files to leave out, such as '**/test_*.py'.")
    format: Literal["auto", "jsonl", "parquet", "warc", "wet", "text"] = Field(
        "auto",
        description="auto goes by the suffix: .jsonl, .ndjson, .json, .warc, .wet (also .gz, .zst) and "
        ".parquet; any other file is text, one document.",
    )
    domain: str | None = Field(
        None,
        min_length=1,
        description="Domain of all documents. Default: the mapped column, else the source's name.",
    )
    columns: dict[DocumentColumn, str] = Field(
        {},
        description="Document column: the input's column to read it from. Default: that of the same name.",
    )
    max_bytes: ByteSize | None = Field(None, description="Text to keep at most, sampled deterministically.")
    max_rows: Count | None = Field(None, description="Documents to keep at most, sampled deterministically.")

    @property
    def default_domain(self) -> str:
        """The domain of a document for which no column tells another."""
        return self.domain or self.source


class Reading(Section):
    """How inputs are cut into shards, and how much of them may be unreadable."""

    shard_bytes: ByteSize = Field(
        32_000_000, description="Aimed size of a shard: the unit of work and of resuming."
    )
    max_document_bytes: ByteSize = Field(64_000_000, description="A longer document counts as unreadable.")
    on_bad_shard: Literal["fail", "skip"] = Field(
        "fail",
        description="Broken shards are quarantined; then the run fails, or goes on without them.",
    )
    max_unreadable_fraction: Fraction = Field(
        0.01,
        description="Fraction of all records that may be unreadable before the run fails.",
    )


class Tokenize(Section):
    """The tokenizer, and the documents held out to validate on."""

    vocab_size: int = Field(
        4096, ge=257, le=2**24, description="Tokens of the byte-level BPE that is trained."
    )
    tokenizer: LocatedPath | None = Field(
        None, description="Path of a tokenizer.json to use instead of training one."
    )
    max_training_bytes: ByteSize = Field(
        20_000_000, description="Text that the tokenizer is trained on, at most."
    )
    validation_fraction: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="Fraction of each domain's documents that is held out, chosen by document hash.",
    )
    repeat: str | None = Field(
        "rehydrate.repeat",
        description="Column with how often an epoch reads a document, 0 to 100; where nothing writes it, or "
        "with null: once.",
    )


class Model(Section):
    """The shape of a tiny transformer and the length of its training."""

    n_layers: Count = Field(2, description="Transformer blocks.")
    d_model: Count = Field(64, description="Width of the residual stream; a multiple of 2 n_heads.")
    n_heads: Count = Field(2, description="Attention heads in each block.", validate_default=True)
    d_ff: Count = Field(192, description="Width of each feed-forward layer.")
    sequence_length: int = Field(128, ge=2, description="Tokens in a sequence.")
    batch_size: Count = Field(4, description="Sequences in a batch.")
    learning_rate: PositiveFloat | None = Field(
        None, description="Peak learning rate. Default: what was measured best for the default shape."
    )
    validation_tokens: Count = Field(
        16_384, description="Held-out tokens of each domain that losses are measured on."
    )

    @field_validator("n_heads")
    @classmethod
    def _heads_split_the_width(cls, n_heads: int, info: ValidationInfo) -> int:
        d_model = info.data.get("d_model", 0)
        if d_model % (2 * n_heads):
            raise refusal(
                f"d_model {d_model} does not split into {n_heads} heads of an even width; "
                f"make d_model a multiple of {2 * n_heads}"
            )
        return n_heads

    @field_validator("n_tokens", check_fields=False)
    @classmethod
    def _one_batch_at_least(cls, n_tokens: int, info: ValidationInfo) -> int:
        batch_tokens = info.data.get("batch_size", 1) * info.data.get("sequence_length", 1)
        if n_tokens < batch_tokens:
            raise refusal(
                f"{n_tokens:,} tokens are less than one batch of batch_size x sequence_length = "
                f"{batch_tokens:,}; raise n_tokens to that or more"
            )
        return n_tokens


class Proxy(Model):
    """The proxy models: all of one shape, each trained on a mixture of its own."""

    n_tokens: Count = Field(300_000, description="Tokens that each proxy model is trained on.")


class Search(Section):
    """A sequential search: each round of proxies is chosen by what the earlier ones showed."""

    token_fractions: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)] = Field(
        (0.3, 1.0),
        description="Parts of proxy.n_tokens that proxies train on. Mixtures begin with the least and are "
        "promoted to more.",
    )
    smaller: tuple[Model, ...] = Field(
        (), description="Shapes below that of `proxy`, on which mixtures run before they are promoted to it."
    )
    n_parallel: Count = Field(4, description="Proxies of a round, asked for together.")
    n_initial: Annotated[int, Field(ge=4)] | None = Field(
        None,
        description="Mixtures drawn before a model proposes. Default: the number of domains, from 8 to 24, "
        "and at most a third of what the first fidelity's part of the budget pays.",
    )
    n_replicates: Count = Field(
        3, description="Runs of the natural mixture at the first fidelity, which show the noise."
    )
    acquisition: Literal["noisy_ei", "thompson"] = Field(
        "noisy_ei", description="How new mixtures are chosen: expected improvement, or posterior draws."
    )

    @field_validator("token_fractions")
    @classmethod
    def _distinct_and_whole(cls, parts: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(parts)) < len(parts) or max(parts) < 1:
            raise refusal(f"found {list(parts)}; the parts differ, and the largest is 1.0")
        return parts


class Mix(Section):
    """How the mixture is chosen."""

    objective: Objective = Field(
        "mean",
        description="What the mixture is to lower: the mean of the domains' validation losses, the worst of "
        "them, their mean weighted by the natural mixture, or by a mapping from domain to weight.",
    )
    n_proxies: int = Field(
        12, ge=4, description="Proxy models to train, the natural and the uniform mixture among them."
    )
    search: Search | None = Field(
        None,
        description="Choose the proxies' mixtures one round after another instead of all at once. n_proxies "
        "is then the budget, in proxies of full size and length.",
    )
    group_size: Count = Field(4, description="Proxy models that are trained together as one batched model.")
    proxy: Proxy = Proxy()
    target_tokens: Count | None = Field(
        None, description="Training budget that max_epochs refers to. Default: train.n_tokens."
    )
    max_epochs: PositiveFloat = Field(4.0, description="How often a domain may be repeated in that budget.")
    match_repetition: bool = Field(
        False,
        description="Let proxies read domains sub-sampled by proxy tokens / target tokens, so that a domain "
        "repeats as often in a proxy as in the run that the mixture is for.",
    )
    trust_region: PositiveFloat = Field(
        0.5, description="Largest Kullback-Leibler divergence of the mixture from the natural one, in nats."
    )


class Online(Section):
    """A mixture that follows the losses of the model in training, from the chosen mixture on."""

    policy: str = Field("mirror_descent", description="What weights follow: a policy's name.")
    parameters: dict[str, Any] = Field({}, description="Of the policy; numbers for each domain by its name.")
    every: Count = Field(10, description="Steps between reports to the policy.")
    lag: Count = Field(10, description="Steps from a report to the first batch with its weights.")
    replay: Patterns = Field((), description="Domains that keep their weight.")
    factor: Count = Field(1, description="Batches from whose rows each batch is chosen; 1: all are kept.")
    method: str = Field("random", description="How rows are chosen; of no effect where factor is 1.")

    @field_validator("policy")
    @classmethod
    def _known_policy(cls, policy: str) -> str:
        if policy not in POLICIES:
            raise refusal(f"found {policy!r}; {near(policy, POLICIES)}")
        return policy

    @field_validator("method")
    @classmethod
    def _method_of_losses(cls, method: str) -> str:
        allowed = [name for name in SELECTORS if name in UNWEIGHTED and SELECTORS[name].needs <= {"losses"}]
        if method in SELECTORS and method not in allowed:
            raise refusal(
                f"{method!r} needs more than losses, or weights rows, which a recipe's training has not; "
                f"take one of {', '.join(allowed)}"
            )
        if method not in allowed:
            raise refusal(f"found {method!r}; {near(method, allowed)}")
        return method


class Train(Model):
    """The models that compare the chosen mixture with the natural and the uniform one."""

    n_tokens: Count = Field(500_000, description="Tokens that each model is trained on.")
    n_evaluations: Count = Field(10, description="Points of the validation curves.")
    n_seeds: Count = Field(1, description="Trainings of each mixture; more than one shows what is noise.")
    online: Online | None = Field(
        None, description="Left out: no mixture that changes during training races."
    )


class Engine(Section):
    """What runs the shards."""

    kind: Literal["local", "ray"] = Field("local", description="Threads of this process, or a Ray cluster.")
    n_workers: Count | None = Field(
        None, description="Shards worked on at a time. Default: the number of cores."
    )
    address: str | None = Field(
        None, description="Address of the Ray cluster. Default: a cluster on this machine."
    )


class Recipe(Section):
    """A whole run, from raw text to a trained model."""

    name: str = Field(
        pattern=r"^\w[\w .+-]*$", description="Name of the run and of its folder. Default: the file's name."
    )
    seed: int = Field(42, ge=0, lt=2**63, description="Seed of everything that is random.")
    inputs: Annotated[tuple[Input, ...], Field(min_length=1)] = Field(
        description="Where documents come from."
    )
    reading: Reading = Reading()
    curate: tuple[Curation, ...] = Field(
        (), description="Operators in order: a name, or a name with its parameters below it."
    )
    tokenize: Tokenize | None = Field(None, description="Left out: the run ends with curated documents.")
    mix: Mix | None = Field(None, description="Left out: no mixture is chosen. Needs 'tokenize'.")
    train: Train | None = Field(None, description="Left out: mixtures are not compared. Needs 'mix'.")
    engine: Engine = Engine()


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe, the file it comes from, and where in it everything stands."""

    recipe: Recipe
    path: Path
    document: LocatedYaml

    @property
    def positions(self) -> Mapping[Keys, Position]:
        """Line and column, from 1, of each key and list entry of the file."""
        return self.document.positions

    def where(self, *keys: str | int) -> str:
        """``file:line: keys`` of what stands at `keys`, or of the nearest thing around it."""
        return f"{self.document.name}:{self.document.position(keys).line}: {'.'.join(map(str, keys))}"

    def describe(self, keys: Keys, message: str) -> str:
        """`message` about what stands at `keys`, with file, line and the line itself."""
        return self.document.describe(Problem(keys, message))


def load_recipe(
    path: str | Path, *, base: str | Path | None = None, variables: Mapping[str, str] | None = None
) -> LoadedRecipe:
    """The recipe in a YAML file.

    Args:
        base: folder that relative paths in the recipe start from; its own folder unless given.
        variables: what ``${NAME}`` in paths stands for; the environment unless given.
    Raises:
        RecipeError: with every problem of the file.
    """
    path = Path(path)
    document = read_yaml(path)
    value: Any = document.value
    if value is None:
        raise document.error([Problem((), "the file is empty; a recipe has at least 'inputs'")])
    if not isinstance(value, dict):
        raise document.error([Problem((), "a recipe is a mapping with at least the key 'inputs'")])
    problems = [*document.problems, *cross_checks(value, document)]
    context = {
        "base": path.parent if base is None else base,
        "variables": os.environ if variables is None else variables,
    }
    try:
        # A section's bare key asks for its defaults.
        sections: dict[str, Any] = {key: {} for key in SECTIONS if key in value and value[key] is None}
        named = json.dumps({"name": path.stem, **value, **sections})
        recipe = Recipe.model_validate_json(named, strict=True, context=context)
    except ValidationError as error:
        problems += explain(error, Recipe, document)
    if problems:
        raise document.error(problems)
    return LoadedRecipe(recipe, path, document)
