"""YAML in which every key and value still knows where it stands, and errors that show the line."""

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from .errors import UsageError

Keys = tuple[str | int, ...]
"""The way from the top of a document to a value: ``("curate", 2, "minhash_dedup", "n_perm")``."""

TEXT = "tag:yaml.org,2002:str"
MERGE = "tag:yaml.org,2002:merge"
TIMESTAMP = "tag:yaml.org,2002:timestamp"


class Position(NamedTuple):
    """Line and column, counted from 1."""

    line: int
    column: int


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a document: at `keys`, or at `position` where the document has no keys yet."""

    keys: Keys
    message: str
    position: Position | None = None


class RecipeError(UsageError):
    """Everything that is wrong with one recipe, in the order of its lines."""

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, but a date stays text."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != TIMESTAMP]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class LocatedYaml:
    """A parsed document: its plain value, and the positions of all its keys and values.

    Duplicate keys, which YAML parsers let pass in silence, are in `problems`.

    >>> document = LocatedYaml("web.yaml", "mix:\\n  n_proxies: 12\\n  max_epoch: 3\\n")
    >>> document.value
    {'mix': {'n_proxies': 12, 'max_epoch': 3}}
    >>> print(document.describe(Problem(("mix", "max_epoch"), "unknown key; did you mean 'max_epochs'?")))
    web.yaml:3: mix.max_epoch: unknown key; did you mean 'max_epochs'?
        3 |   max_epoch: 3

    Args:
        name: the file as messages are to call it.
    Raises:
        RecipeError: `text` is no YAML.
    """

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.lines = text.splitlines()
        self.problems: list[Problem] = []
        self._keys: dict[Keys, yaml.Node] = {}
        self._values: dict[Keys, yaml.Node] = {}
        try:
            self.value: Any = self._parse(text)
        except yaml.YAMLError as error:
            raise self.error([_syntax_problem(error, text)]) from None

    def _parse(self, text: str) -> Any:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            if root is None:
                return None
            self._refuse_repeated_keys(root, (), ())
            value = loader.construct_document(root)
            self._locate(root, ())
            return value
        finally:
            loader.dispose()

    def _refuse_repeated_keys(self, node: yaml.Node, keys: Keys, above: tuple[yaml.Node, ...]) -> None:
        """Walk the nodes as they were written, before construction lays merged mappings into each other."""
        if node in above:
            raise yaml.MarkedYAMLError(problem="an alias that contains itself", problem_mark=node.start_mark)
        first_line: dict[str, int] = {}
        for key, key_node, child in _children(node):
            here = (*keys, key)
            if key_node is not None and key_node.tag != MERGE:
                line = key_node.start_mark.line + 1
                if isinstance(key_node, yaml.ScalarNode) and key_node.tag != TEXT:
                    message = f"YAML reads this key as {_found_kind(key_node)}; write it in quotes"
                    self.problems.append(Problem(here, message, _position(key_node)))
                    key_node.tag = TEXT  # so that it goes by the name that stands in the file
                if str(key) in first_line:
                    message = f"this key stands on line {first_line[str(key)]} already; keep one of the two"
                    self.problems.append(Problem(here, message, _position(key_node)))
                first_line.setdefault(str(key), line)
            self._refuse_repeated_keys(child, here, (*above, node))

    def _locate(self, node: yaml.Node, keys: Keys) -> None:
        self._values[keys] = node
        for key, key_node, child in _children(node):
            if key_node is not None:
                self._keys[(*keys, key)] = key_node
            self._locate(child, (*keys, key))

    @property
    def positions(self) -> Mapping[Keys, Position]:
        """Where each key stands, or the value where it has no key (an entry of a list, the document)."""
        nodes = {**self._values, **self._keys}
        return {keys: _position(node) for keys, node in nodes.items()}

    def __contains__(self, keys: Keys) -> bool:
        return keys in self._values

    def written(self, keys: Keys) -> str | None:
        """The text of the plain (unquoted) scalar at `keys`, as it stands in the file."""
        node = self._values.get(keys)
        return str(node.value) if isinstance(node, yaml.ScalarNode) and node.style is None else None

    def position(self, keys: Keys) -> Position:
        """Where `keys` stands, or the nearest thing around it that exists. A value has its own line."""
        for n in range(len(keys), -1, -1):
            if (node := self._values.get(keys[:n])) is not None:
                is_whole_scalar = n == len(keys) and isinstance(node, yaml.ScalarNode) and node.value
                return _position(node if is_whole_scalar else self._keys.get(keys[:n], node))
        return Position(1, 1)

    def describe(self, problem: Problem) -> str:
        """``file:line: keys: message``, then the line itself."""
        line = (problem.position or self.position(problem.keys)).line
        path = ".".join(map(str, problem.keys))
        headline = f"{self.name}:{line}: {path + ': ' if path else ''}{problem.message}"
        if line > len(self.lines):
            return headline
        return f"{headline}\n{line:>5} | {self.lines[line - 1].expandtabs(4).rstrip()}"

    def error(self, problems: Iterable[Problem]) -> RecipeError:
        """One error that tells all `problems`, in the order of their lines."""
        ordered = sorted(problems, key=lambda problem: problem.position or self.position(problem.keys))
        return RecipeError("\n".join(map(self.describe, ordered)), ordered)


def read_yaml(path: Path) -> LocatedYaml:
    """The document in the file at `path`.

    Raises:
        RecipeError: there is no such file, it cannot be read, it is not UTF-8, or it is no YAML.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise RecipeError(f"{path}: there is no such file{_near_files(path)}") from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{data[error.start]:02X} at offset {error.start:,} is not UTF-8"
        raise RecipeError(f"{path}:{line}: {found}; save the file as UTF-8") from None
    return LocatedYaml(str(path), text)


def near(name: str, allowed: Iterable[str]) -> str:
    """``did you mean 'x'?`` where something in `allowed` resembles `name`, else all that is allowed.

    >>> near("num_perm", ["n_perm", "seed"]), near("zzz", ["n_perm", "seed"])
    ("did you mean 'n_perm'?", 'allowed: n_perm, seed')
    """
    names = list(allowed)
    match = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {match[0]!r}?" if match else f"allowed: {', '.join(names) or 'none'}"


def found(value: object, written: str | None = None) -> str:
    """`value` in the words of someone who wrote YAML; `written` is the plain scalar that it was read from.

    >>> found("abc"), found(3), found(None), found([1]), found(False, "no")
    ("the text 'abc'", 'the number 3', 'nothing', 'a list', 'no, which YAML reads as false')
    """
    if isinstance(value, bool):
        plain = str(value).lower()
        return (
            plain
            if written is None or written.lower() == plain
            else f"{written}, which YAML reads as {plain}"
        )
    if value is None:
        return "nothing"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the text {value!r}" if len(value) <= 60 else f"the text {value[:57]!r}..."
    return "a list" if isinstance(value, list | tuple) else "a mapping"


def number_in_text(text: object, written: str | None, *, whole: bool = False) -> str:
    """What to do where a number was wanted and `text` looks like one to people but not to YAML 1.1.

    >>> number_in_text("1e-3", "1e-3"), number_in_text("1e6", "1e6", whole=True)
    ('YAML reads 1e-3 as text; write 1.0e-3', 'YAML reads 1e6 as text; write 1000000')
    >>> number_in_text("3", None), number_in_text("many", "many")
    ('write 3, without quotes', '')
    """
    try:
        value = float(str(text))
    except ValueError:
        return ""
    if not isinstance(text, str):
        return ""
    if not isinstance(yaml.safe_load(text), str):
        return f"write {text}, without quotes" if written is None else ""
    if not math.isfinite(value) or (whole and not value.is_integer()):
        return ""
    if whole:
        return f"YAML reads {text} as text; write {int(value)}"
    mantissa, _, exponent = text.lower().partition("e")
    mantissa += "" if "." in mantissa else ".0"
    sign = "" if exponent[:1] in ("-", "+") else "+"
    return f"YAML reads {text} as text; write {mantissa}e{sign}{exponent}"


def _children(node: yaml.Node) -> Iterator[tuple[str | int, yaml.Node | None, yaml.Node]]:
    """(key, its node, the value's node) of a mapping or a list."""
    if isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            yield (key.value if isinstance(key, yaml.ScalarNode) else "?"), key, child
    elif isinstance(node, yaml.SequenceNode):
        for i, child in enumerate(node.value):
            yield i, None, child


def _position(node: yaml.Node) -> Position:
    return Position(node.start_mark.line + 1, node.start_mark.column + 1)


def _found_kind(node: yaml.Node) -> str:
    kinds = {"bool": "true or false", "int": "a number", "float": "a number", "null": "nothing"}
    return kinds.get(node.tag.rpartition(":")[2], node.tag)


def _syntax_problem(error: yaml.YAMLError, text: str) -> Problem:
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        message = f"character U+{int(error.character):04X} is not allowed in YAML; delete it"
        return Problem((), message, Position(line, 1))
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return Problem((), f"this is not YAML: {error}")
    mark = error.problem_mark
    position = Position(mark.line + 1, mark.column + 1)
    if "'\\t'" in (error.problem or ""):
        return Problem((), f"a tab in column {position.column}; YAML is indented with spaces", position)
    began = error.context_mark
    context = f" ({error.context}, begun on line {began.line + 1})" if error.context and began else ""
    return Problem((), f"this is not YAML: {error.problem} in column {position.column}{context}", position)


def _near_files(path: Path) -> str:
    names = [other.name for other in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
    if not path.parent.is_dir():
        return f", nor a folder {str(path.parent)!r}"
    match = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {str(path.parent / match[0])!r}?" if match else ""
