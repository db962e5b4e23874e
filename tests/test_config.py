from pathlib import Path
from typing import Any, Literal, Self

import pytest
import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from medgen.config import Config, apply_overrides, load_config, parse_config
from medgen.errors import ConfigError


class Inner(Config):
    steps: int = Field(10, ge=1)
    kind: Literal["a", "b"] = "a"
    sizes: tuple[int, int] = (1, 2)
    rate: float | None = None
    fast: bool | int = False


class Outer(Config):
    data: str
    training: Inner = Inner()
    maybe: Inner | None = None
    place: Path | None = None
    word: Any = "yes"

    @field_validator("data")
    @classmethod
    def _not_empty(cls, value: str) -> str:
        if not value:
            raise ValueError("must name a folder")
        return value

    @field_validator("word")
    @classmethod
    def _yes(cls, value: object) -> object:
        if value != "yes":
            raise ValueError(f"expected yes, found {value!r}")
        return value


def write(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return path


def test_file_overrides_and_round_trip(tmp_path):
    path = write(tmp_path, "data: here\ntraining: {steps: 5}\n")
    config = load_config(Outer, path, ["training.steps=7", "training.sizes=[3, 4]", "maybe.kind=b", "data=x=y"])
    assert config == Outer(data="x=y", training=Inner(steps=7, sizes=(3, 4)), maybe=Inner(kind="b"))
    assert load_config(Outer, write(tmp_path, yaml.safe_dump(config.model_dump(mode="json")))) == config
    with pytest.raises(ValidationError):
        config.data = "other"


def test_truth_values_where_they_are_meant():
    assert parse_config(Inner, {"fast": True}, "here").fast is True


def test_overrides_do_not_change_their_input():
    data = {"a": {"b": 1}}
    assert apply_overrides(data, ["a.b=2", "c.d=null"]) == {"a": {"b": 2}, "c": {"d": None}}
    assert data == {"a": {"b": 1}}


def test_a_value_is_whole_whatever_yaml_takes_for_a_comment():
    assert apply_overrides({}, ["data=my scans # 2", "x=a#b"]) == {"data": "my scans # 2", "x": "a#b"}
    assert apply_overrides({}, ["x='a # b'", "y=[1, 2] # two"]) == {"x": "a # b", "y": [1, 2]}


@pytest.mark.parametrize(
    ("text", "overrides", "words"),
    [
        ("data: x\ntraining: {stepz: 5}", [], "unknown key 'training.stepz'; did you mean 'steps'"),
        ("data: x\nfoo: 1", [], "unknown key 'foo'; known keys: data, maybe, place, training, word"),
        ("data: x\nmaybe: {stepz: 5}", [], "did you mean 'steps'"),
        ("training: {}", [], "key 'data' is required"),
        ("data: x", ["training.steps=zero"], "training.steps: "),
        ("data: x", ["training.steps=0"], "greater than or equal to 1 (found 0)"),
        ("data: x", ["training.steps=true"], "training.steps: Input should be a number, not true or false"),
        ("data: x", ["training.sizes=[1, yes]"], "training.sizes: Input should be a number"),
        ("data: x", ["training.rate=false"], "training.rate: Input should be a number"),
        ("data: x", ["training.rate=.nan"], "training.rate: Input should be a finite number"),
        ("data: x", ["training.rate=-.inf"], "training.rate: Input should be a finite number"),
        ("data: x", ["training.kind=c"], "training.kind: "),
        ("data: ''", [], "data: must name a folder"),
        ("data: x", ["training"], "expected key=value"),
        ("data: x", ["=3"], "expected key=value"),
        ("data: x", ["data.deep=3"], "not a group of settings"),
        ("data: x", ["training.steps=[1"], "not valid YAML"),
        ("[1, 2]", [], "expected a YAML mapping of names to values, found a list"),
        ("1: 2", [], "expected a YAML mapping of names to values, found a name that is no text"),
        ("data: x", ["training.sizes=[1]"], "training.sizes: expected more values (found [1])"),
        ("data: x\ntraining: {sizes: [1, 2]}", ["training.sizes.1=3"], "give the whole of it, as sizes=[...]"),
        ("data: x", ["training=5"], "training: expected a group of settings (found 5)"),
        ("data: x", ["place=5"], "place: expected a path; write ./ before a name that is a number (found 5)"),
        ("data: x", ["word=no"], "word: expected yes, found False"),
        ("a: [1", [], "not plain YAML at line"),
        ("data: !!python/object/apply:os.getcwd []", [], "not plain YAML"),
    ],
)
def test_errors_are_one_line(tmp_path, text, overrides, words):
    with pytest.raises(ConfigError) as caught:
        load_config(Outer, write(tmp_path, text), overrides)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unreadable_files(tmp_path):
    with pytest.raises(ConfigError, match="no such configuration file"):
        load_config(Outer, tmp_path / "absent.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read as text"):
        load_config(Outer, tmp_path / "binary.yaml")
    with pytest.raises(ConfigError, match="cannot be read as text"):
        load_config(Outer, tmp_path)


def test_every_problem_is_named_at_once():
    with pytest.raises(ConfigError, match=r"training\.steps.*unknown key 'foo'.*|unknown key 'foo'.*training\.steps"):
        parse_config(Outer, {"data": "x", "training": {"steps": 0}, "foo": 1}, source="here")


def test_keys_that_do_not_go_together_are_named_without_all_the_others():
    class Pair(Config):
        low: int = 0
        high: int = 1
        folder: str = "private"

        @model_validator(mode="after")
        def _ordered(self) -> Self:
            if self.low > self.high:
                raise ValueError(f"low: expected at most high ({self.high}), found {self.low}")
            return self

    class Outer(Config):
        pair: Pair = Pair()

    with pytest.raises(ConfigError) as refused:
        parse_config(Outer, {"pair": {"low": 3, "folder": "Mueller"}}, source="file.yaml")
    assert str(refused.value) == "file.yaml: pair: low: expected at most high (1), found 3"
    with pytest.raises(ConfigError) as refused:
        parse_config(Pair, {"low": 3}, source="file.yaml")
    assert str(refused.value) == "file.yaml: low: expected at most high (1), found 3"
