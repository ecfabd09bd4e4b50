import subprocess
import sys
from pathlib import Path

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress import yaml_file
from compress.errors import CompressError, UsageError


class Pruning(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    channel_ratio: float = pydantic.Field(default=0.5, lt=1)
    criterion: str = "l2"


class Recipe(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    name: str
    steps: tuple[Pruning, ...] = ()
    last: Pruning | None = None


def mistakes(text: str, model: type[pydantic.BaseModel] = Recipe) -> list[str]:
    with pytest.raises(UsageError) as caught:
        yaml_file.parse(text, "recipe.yaml").validate(model)
    return str(caught.value).splitlines()


def test_numbers_are_those_of_yaml_1_2() -> None:
    content = yaml_file.parse("{a: 1e-3, b: 1.5e3, c: yes, d: on, e: 0o17, f: 10}", "x").content
    assert content == {"a": 0.001, "b": 1500.0, "c": "yes", "d": "on", "e": 15, "f": 10}
    assert isinstance(content["a"], float)


def test_a_wrong_value_is_named_with_line_column_and_key() -> None:
    text = "name: half\nsteps:\n  - criterion: l1\n    channel_ratio: 1.5\n"
    assert mistakes(text) == ["recipe.yaml:4:20: steps.0.channel_ratio: Input should be less than 1 (it is 1.5)"]


def test_every_mistake_is_told_at_once() -> None:
    assert len(mistakes("steps:\n  - {channel_ratio: 2}\n  - {channel_ratio: 3}\n")) == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: a\nstep: []\n", "recipe.yaml:2:1: step: there is no such key; did you mean steps?"),
        ("name: a\nlast:\n  chanel_ratio: 0.1\n", "recipe.yaml:3:3: last.chanel_ratio: there is no such key; did you mean channel_ratio?"),
        ("name: a\nsteps:\n- {zzz: 1}\n", "recipe.yaml:3:4: steps.0.zzz: there is no such key; there are: channel_ratio, criterion."),
        ("steps: []\n", "recipe.yaml:1:1: name: this key is missing."),
        ("- 1\n", "recipe.yaml:1:1: here stand keys with their values: last, name, steps."),
        ("", "recipe.yaml: here stand keys with their values: last, name, steps."),
        ("name: a\nlast: 3\n", "recipe.yaml:2:7: last: here stand keys with their values: channel_ratio, criterion."),
    ],
)  # fmt: skip
def test_a_wrong_key_is_named_with_the_nearest(text: str, said: str) -> None:
    assert mistakes(text) == [said]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", 'recipe.yaml:3:1: found duplicate key "a"'),
        ("a: [1,\n", "recipe.yaml:2:1: expected the node content"),
        ("a: b: c\n", "recipe.yaml:1:5: mapping values are not allowed here."),
        ("a: 1\n---\nb: 2\n", "recipe.yaml:2:1: found another document."),
        ("a: !!python/object/apply:os.system [exit]\n", "recipe.yaml:1:4: could not determine a constructor"),
        ("a: &x [1]\nb: *x\n", "holds an alias"),
        ("a: 2020-99-99\n", "recipe.yaml is not YAML: month must be in 1..12."),
        ("a: \x07\n", "recipe.yaml is not YAML: unacceptable character"),
        ("[" * 500, "recipe.yaml:1:501: expected the node content"),
        ("[" * 500 + "]" * 500, "recipe.yaml is nested too deeply to be meant."),
        ("a: {b: [1, .nan]}\n", "recipe.yaml:1:12: a.b.1: NaN and infinity are no settings; give a number."),
        ("a: .inf\n", "recipe.yaml:1:4: a: NaN and infinity"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_its_place(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        yaml_file.parse(text, "recipe.yaml")
    assert said in str(caught.value)


def test_part_of_a_file_is_validated_where_it_stands() -> None:
    file = yaml_file.parse("steps:\n  - prune: {channel_ratio: 0.25}\n  - prune: {channel_ratio: 9}\n", "recipe.yaml")
    assert file.validate(Pruning, ("steps", 0, "prune")).channel_ratio == 0.25
    with pytest.raises(UsageError, match=r"^recipe.yaml:3:28: steps.1.prune.channel_ratio: .* less than 1 \(it is 9\)"):
        file.validate(Pruning, ("steps", 1, "prune"))
    with pytest.raises(UsageError, match=r"^recipe.yaml:2:5: steps.0.quantize: this key is missing"):
        file.validate(Pruning, ("steps", 0, "quantize"))


def test_mistakes_found_by_a_validator_that_validates_parts_stand_in_their_own_places() -> None:
    class Nested(pydantic.BaseModel):
        steps: tuple[Pruning, ...]

        @pydantic.field_validator("steps", mode="before")
        @classmethod
        def _each(cls, value: object) -> object:
            return pydantic.TypeAdapter(tuple[Pruning, ...]).validate_python(value)

    [said] = mistakes("steps:\n  - {}\n  - channel_ratio: 4\n", Nested)
    assert said.startswith("recipe.yaml:3:20: steps.1.channel_ratio: ")


def test_a_file_is_called_by_its_name_alone(tmp_path: Path) -> None:
    (tmp_path / "gate.yaml").write_text("nam: 1\n")
    with pytest.raises(UsageError) as caught:
        yaml_file.read_yaml(tmp_path / "gate.yaml", Recipe)
    assert str(caught.value).startswith("gate.yaml:1:1: name: ")


def test_a_file_that_is_no_text_or_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"a: \xff\n")
    with pytest.raises(CompressError, match="byte 3 is not UTF-8"):
        yaml_file.read_yaml(tmp_path / "x.yaml", Recipe)
    with pytest.raises(CompressError, match=r"cannot read the file .*: No such file"):
        yaml_file.read_yaml(tmp_path / "y.yaml", Recipe)


@given(st.text(alphabet="ab:-[]{}'\"&*!|> \n\t#%@`?,1.", max_size=40))
def test_no_text_fails_otherwise_than_with_our_error(text: str) -> None:
    try:
        yaml_file.parse(text, "x").validate(Recipe)
    except UsageError as error:
        assert str(error).startswith("x")


def test_reading_limits_and_recipes_imports_no_torch() -> None:
    code = "import sys, compress.yaml_file, compress.limit; sys.exit(bool({'torch', 'scipy', 'matplotlib'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
