"""Configuration: frozen pydantic models read from YAML, with ``a.b=3`` overrides from the command line."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from medgen.errors import ConfigError, DataError
from medgen.system.files import is_utf8, read_text


class Config(BaseModel):
    """Frozen base of every configuration: unknown keys are refused, values are validated, nothing mutates.

    Numbers are finite, and true and false are none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_values(cls, value: Any, info: ValidationInfo) -> Any:
        given = value if isinstance(value, list | tuple) else (value,)
        if any(isinstance(item, bool) for item in given):
            kinds = kinds_of(cls.model_fields[str(info.field_name)].annotation)
            # Python counts with them: true would be 1 step.
            if bool not in kinds and kinds & {int, float}:
                raise ValueError("Input should be a number, not true or false")
        return value


C = TypeVar("C", bound=Config)
# Configurations are written by people: a larger one is something else.
_BYTES, _VALUES = 1 << 20, 100_000
# Patterns for files and ids begin with signs that mean something else in YAML: *_T1w.nii.gz, {id}_labels.nii.gz.
_PATTERN = re.compile(r"[*?]|\{(id|subject)\}")


class _Loader(yaml.SafeLoader):
    """Plain data only, and a key that is given twice is a mistake."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        for place, key in enumerate(keys):
            if key in keys[:place]:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def load_config(cls: type[C], path: str | Path, overrides: Iterable[str] = ()) -> C:
    """Read a YAML file, apply ``key.sub=value`` overrides and validate.

    Args:
        cls: The configuration class.
        path: YAML file. Only plain data is accepted: tags never run code.
        overrides: Strings such as ``"model.latent=32"``; the value is parsed as YAML, so ``3``, ``true``,
            ``[1, 2]`` and ``null`` have their YAML meaning. What begins with ``*``, ``?``, ``{id}`` or ``{subject}`` is
            text as it stands.

    Returns:
        The validated, frozen configuration.

    Raises:
        ConfigError: If the file is missing, is not a YAML mapping, or a key or value is wrong; the message names
            the key, what was found, and the nearest known key.
    """
    return parse_config(cls, apply_overrides(read_yaml(path), overrides), source=str(path))


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read one YAML mapping as plain data; see :func:`load_config` for the errors."""
    path = Path(path)
    if not path.exists():
        raise ConfigError(f"{path}: no such configuration file; check the path")
    try:
        text = read_text(path, _BYTES)
    except DataError as error:
        raise ConfigError(f"{error}; expected a YAML file") from None
    data = plain_yaml(text, str(path))
    if data is None:
        return {}
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        what = "a name that is no text" if isinstance(data, dict) else f"a {type(data).__name__}"
        raise ConfigError(f"{path}: expected a YAML mapping of names to values, found {what}; write name: value")
    return data


def plain_yaml(text: str, source: str) -> Any:
    """YAML as plain data: tags run nothing, and aliases cannot multiply a few lines into gigabytes.

    Raises:
        ConfigError: If it is not YAML, holds a tag, a key twice, or more than 100 000 values with aliases written out.
    """
    try:
        data = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not valid YAML"
        raise ConfigError(f"{source}: not plain YAML{where}: {problem}") from None
    except (ValueError, TypeError, OverflowError, AttributeError) as error:
        raise ConfigError(f"{source}: not plain YAML: {str(error)[:120]}") from None
    except RecursionError:
        raise ConfigError(f"{source}: not plain YAML: it is nested too deeply") from None
    level, left = [data], _VALUES
    while level:
        children = (
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        )
        level = list(itertools.islice(children, left + 1))
        left -= len(level)
        if left < 0:
            raise ConfigError(f"{source}: not plain YAML: its aliases stand for more than {_VALUES} values")
    return data


def apply_overrides(data: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Return a copy of ``data`` with ``a.b=value`` strings applied (pure).

    Raises:
        ConfigError: If an override has no ``=``, its value is not YAML, or it descends into a value that is no mapping.
    """
    result = _copy(data)
    for item in overrides:
        key, separator, text = item.partition("=")
        if not is_utf8(item):
            raise ConfigError(f"override {item!r}: holds bytes that are not UTF-8; rename what it names")
        if not separator or not key.strip():
            raise ConfigError(f"override {item!r}: expected key=value, for example training.steps=500")
        try:
            # YAML takes what follows " #" for a comment: on a command line it is a part of the value.
            literal = _PATTERN.match(text) or (" #" in text and text.lstrip()[:1] not in "\"'[{")
            value = text if literal else plain_yaml(text, "value")
        except ConfigError:
            raise ConfigError(f"override {item[:200]!r}: the value is not valid YAML") from None
        *parents, last = key.strip().split(".")
        node = result
        for name in parents:
            child = node.setdefault(name, {})
            if isinstance(child, list):
                raise ConfigError(f"override {item!r}: {name!r} is a list; give the whole of it, as {name}=[...]")
            if not isinstance(child, dict):
                raise ConfigError(f"override {item!r}: {name!r} is a {type(child).__name__}, not a group of settings")
            node = child
        node[last] = value
    return result


def parse_config(cls: type[C], data: Mapping[str, Any], source: str) -> C:
    """Validate plain data into ``cls``; ``source`` names it in errors.

    Raises:
        ConfigError: One line that lists every wrong key with what was found.
    """
    try:
        return cls.model_validate(dict(data))
    except ValidationError as error:
        problems = "; ".join(_describe(cls, dict(item)) for item in error.errors(include_url=False))
        raise ConfigError(f"{source}: {problems}") from None


def unknown_key_words(key: str, known: Sequence[str]) -> str:
    """What to say of a key, dots between levels, that is none of those known at its level.

    >>> unknown_key_words("training.stepz", ["seed", "steps"])
    "unknown key 'training.stepz'; did you mean 'steps'?"
    """
    near = nearest(key.rpartition(".")[2], known)
    hint = near.removeprefix("; ") or (f"known keys: {', '.join(known)}" if known else "remove it")
    return f"unknown key {key!r}; {hint}"


def choice_words(found: str, choices: Sequence[str]) -> str:
    """What to say of a value that is none of its choices.

    >>> choice_words("MRI", ["MR", "CT"])
    "expected 'MR' or 'CT' (found 'MRI'); did you mean 'MR'?"
    """
    *some, last = map(repr, choices)
    expected = f"{', '.join(some)} or {last}" if some else last
    return f"expected {expected} (found {found[:80]!r}){nearest(found, choices)}"


def nearest(found: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` with the known word that is most like the found one, else nothing.

    >>> nearest("simulatd", ["default", "simulated"]), nearest("MR T1", ["CT"])
    ("; did you mean 'simulated'?", '')
    """
    # Case is what differs most often.
    words = {word.lower(): word for word in known}
    near = difflib.get_close_matches(found.lower(), words, n=1)
    return f"; did you mean {words[near[0]]!r}?" if near else ""


def _copy(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in data.items()}


def _describe(cls: type[Config], item: dict[str, Any]) -> str:
    location = [str(part) for part in item["loc"]]
    key = ".".join(location)
    if item["type"] == "extra_forbidden":
        return unknown_key_words(key, _known_keys(cls, location[:-1]))
    if item["type"] == "missing" and location[-1].isdigit():
        return f"{'.'.join(location[:-1])}: expected more values (found {item.get('input')!r})"
    if item["type"] == "missing":
        return f"key {key!r} is required; add it or pass {key}=..."
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "value_error" and isinstance(item.get("input"), Mapping):
        # Of keys that do not go together; the message names them, and all the others would bury it.
        return f"{key}: {message}" if key else message
    if item["type"] == "path_type":
        message = "expected a path; write ./ before a name that is a number"
    if item["type"] == "literal_error" and isinstance(item.get("input"), str) and (choices := _choices(cls, location)):
        return f"{key}: {choice_words(item['input'], choices)}"
    if item["type"] in ("model_type", "model_attributes_type", "dict_type"):
        message = "expected a group of settings"
    found = repr(item.get("input"))
    said = "" if f"found {found}" in message else f" (found {found[:80]})"
    return f"{key or 'configuration'}: {message}{said}"


def kinds_of(annotation: Any) -> set[Any]:
    """The types that an annotation is made of."""
    return {annotation}.union(*map(kinds_of, get_args(annotation))) if get_args(annotation) else {annotation}


def _choices(cls: type[Config], location: list[str]) -> list[str]:
    """The words that a key takes, where it takes nothing else."""
    node: Any = cls
    for name in location[:-1]:
        node = _config_of(node.model_fields[name].annotation) if name in getattr(node, "model_fields", {}) else None
    field = getattr(node, "model_fields", {}).get(location[-1])
    if field is None or get_origin(field.annotation) is not Literal:
        return []
    return [value for value in get_args(field.annotation) if isinstance(value, str)]


def _known_keys(cls: type[Config], parents: list[str]) -> list[str]:
    node: Any = cls
    for name in parents:
        field = getattr(node, "model_fields", {}).get(name)
        if field is None:
            # Discriminated unions and dicts put tags into the location; skip what is not a field.
            continue
        node = _config_of(field.annotation)
        if node is None:
            return []
    return sorted(getattr(node, "model_fields", {}))


def _config_of(annotation: Any) -> type[Config] | None:
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _config_of(argument)
        if found is not None:
            return found
    return None
