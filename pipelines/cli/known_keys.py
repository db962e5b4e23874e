"""The keys and choices of every run's configuration as data, so that a typo is answered before torch is imported.

``configs/keys.json`` is made from the configuration classes by ``python -m medgen.pipelines.cli.known_keys``, and a
test compares the two. What a class of this installation has beyond the file is left to the class.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from itertools import chain, count
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from medgen.config import Config, choice_words, kinds_of, unknown_key_words
from medgen.errors import ConfigError

# The part of a node that is the same for every name, such as further models, and the part that depends on the family.
EACH, FAMILIES, CHOICES = "*", "family=", "|"
# What is below a key: the name of a class, choices, the same for every name, or by family; None where it is not known.
Node = Mapping[str, Any] | str | None


def refuse_typos(config: str, values: Mapping[str, Any], source: str) -> None:
    """Refuse keys that no configuration has, and choices that are none, in the words of the configuration itself.

    Args:
        config: Name of the configuration's class.
        values: A configuration as plain data.
        source: Its name for errors.

    Raises:
        ConfigError: One line with every such key, and what may have been meant.
    """
    problems = list(_problems(config, values, ()))
    if problems:
        raise ConfigError(f"{source}: {'; '.join(problems)}")


def completions(config: str, begun: str) -> list[str]:
    """Settings that begin so, as ``key=`` or, where the key is complete, ``key=choice``."""
    key, equals, value = begun.partition("=")
    *parents, last = key.split(".")
    node: Node = config
    for name in parents:
        node = _below(node, name, {})
    if equals:
        choices = _resolved(_below(node, last, {})).get(CHOICES, [])
        return [f"{key}={choice}" for choice in choices if choice.startswith(value)]
    above = "".join(f"{name}." for name in parents)
    found = {name: _resolved(own) for name, own in _fields(node, {}).items() if name.startswith(last)}
    return [f"{above}{name}{'.' if own and CHOICES not in own else '='}" for name, own in found.items()]


@cache
def known_keys() -> Mapping[str, Any]:
    """Name of a class → its keys, each with what is below it."""
    found: Mapping[str, Any] = json.loads((files("medgen.configs") / "keys.json").read_text(encoding="utf-8"))
    return found


def _problems(given: Node, value: Any, above: tuple[str, ...]) -> Iterator[str]:
    node = _resolved(given)
    if CHOICES in node:
        if isinstance(value, str) and value not in node[CHOICES] and not _is_choice(value):
            yield f"{'.'.join(above)}: {choice_words(value, node[CHOICES])}"
        return
    if not isinstance(value, Mapping) or not node:
        return
    known = _fields(node, value)
    for name, own in value.items():
        if name in known or EACH in node:
            yield from _problems(_below(node, name, value), own, (*above, name))
        elif not _is_written(name) and not _is_member(name):
            yield unknown_key_words(".".join((*above, name)), sorted(known))


def _resolved(node: Node) -> Mapping[str, Any]:
    """A node with its class looked up; empty where nothing is known."""
    if isinstance(node, str):
        found: Mapping[str, Any] = known_keys().get(node, {})
        return found
    return node or {}


def _fields(given: Node, value: Mapping[str, Any]) -> Mapping[str, Any]:
    """The keys that a node has, for the family that a model names."""
    node = _resolved(given)
    if FAMILIES in node:
        families: Mapping[str, Any] = node[FAMILIES]
        named = families.get(str(value.get("family")))
        # Without a known family, the keys of any.
        own = _resolved(named) or {key: None for other in families.values() for key in _resolved(other)}
        return {**own, "family": {CHOICES: [*families]}}
    return {name: own for name, own in node.items() if name not in (EACH, CHOICES)}


def _below(node: Node, name: str, value: Mapping[str, Any]) -> Node:
    found: Node = _fields(node, value).get(name, _resolved(node).get(EACH))
    return found


def _is_written(key: str) -> bool:
    """Whether a class of this installation may have such a field, or words of its own for a key of that name."""
    return _in_sources(rf"^\s+{re.escape(key)}\s*:|[\"']{re.escape(key)}[\"']\s*:")


def _is_choice(value: str) -> bool:
    """Whether a class of this installation may offer such a choice."""
    return _in_sources(rf"Literal\[[^\]]*[\"']{re.escape(value)}[\"']")


@cache
def _in_sources(pattern: str) -> bool:
    """Whether a line of this installation has it: then the class knows better than the file."""
    import medgen

    wanted = re.compile(pattern.encode(), re.MULTILINE)
    folders = (Path(medgen.__file__).parent, Path(__file__).parents[1])
    return any(wanted.search(path.read_bytes()) for folder in folders for path in folder.rglob("*.py"))


def _is_member(name: str) -> bool:
    """Whether a key is named after files that are found by their names, such as backends and their halves."""
    import medgen

    known = {path.stem for path in (Path(medgen.__file__).parent / "synthesis").rglob("*.py")}
    return bool(name) and all(part in known for part in name.split("+"))


def made() -> dict[str, Any]:
    """The content of ``configs/keys.json``, from the classes."""
    from medgen.models.catalogue import family_class
    from medgen.models.families import available
    from medgen.preprocessing.recipe import Preprocess

    from ..anomaly.config import AnomalyRunConfig
    from ..augment.config import AugmentRunConfig
    from ..augment.value_config import ValueRunConfig
    from ..pretrain_settings import PretrainRunConfig
    from ..train_settings import TrainRunConfig

    classes: dict[str, Any] = {}
    families = {name: _node(family_class(name).Settings, classes) for name in available()}
    # What is plain data in the class, since its keys depend on other keys or are a part of a recipe.
    plain: dict[str, Node] = {"model": {FAMILIES: families}, "preprocess": _node(Preprocess, classes)}
    for run in (AnomalyRunConfig, AugmentRunConfig, ValueRunConfig, TrainRunConfig, PretrainRunConfig):
        _node(run, classes)
    for keys in classes.values():
        keys |= {name: own for name, own in plain.items() if name in keys and keys[name] is None}
    return dict(sorted(classes.items()))


def _node(kind: Any, classes: dict[str, Any]) -> Node:
    """What is known of the keys below a value of this type; classes that are met are added."""
    parts, origin = get_args(kind), get_origin(kind)
    if isinstance(kind, type) and issubclass(kind, Config):
        keys = {name: _node(field.annotation, classes) for name, field in sorted(kind.model_fields.items())}
        # Halves of a pair are classes of the same name with other keys.
        names = chain([kind.__name__], (f"{kind.__name__} {number}" for number in count(2)))
        return next(name for name in names if classes.setdefault(name, keys) == keys)
    if origin is Literal:
        return {CHOICES: list(parts)} if all(isinstance(part, str) for part in parts) else None
    if isinstance(origin, type) and issubclass(origin, Mapping):
        below = _node(parts[1], classes)
        return None if below is None else {EACH: below}
    if origin in (tuple, list):
        return None
    found = [node for node in (_node(part, classes) for part in parts) if node is not None]
    # Of what may be a choice or something else, such as a number or a list, the class decides.
    others = kinds_of(kind) & {int, float, bool, str, dict, Path}
    return found[0] if len(found) == 1 and not others else None


def write() -> None:
    """Make ``configs/keys.json`` anew."""
    path = Path(str(files("medgen.configs"))) / "keys.json"
    path.write_text(json.dumps(made(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
