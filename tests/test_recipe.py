"""Recipes: checked as a whole before anything starts."""

import pytest

from compress import recipe
from compress.errors import CompressError, UsageError
from compress.pipeline import Step

HEAD = "network: {name: digits_cnn}\ndata: {name: digits}\n"


def read(tmp_path, text):
    (tmp_path / "r.yaml").write_text(text)
    return recipe.read(tmp_path / "r.yaml")


@pytest.mark.parametrize("name", recipe.STEPS)
def test_every_step_of_the_table_is_a_step_of_that_name(name):
    found = recipe.step_class(name)
    assert issubclass(found, Step)
    assert found.model_construct().name == name
    assert all(field.description for field in found.model_fields.values()), "a field without a word about it"


@pytest.mark.parametrize("name", recipe.shipped())
def test_a_shipped_recipe_reads_and_says_what_it_does(name, tmp_path):
    read_ = recipe.read(recipe.find(name))
    assert read_.sequence
    assert len(recipe.shipped()[name]) > 20


def test_the_resolved_recipe_reads_as_the_same_recipe(tmp_path):
    from compress import yaml_file

    first = recipe.read(recipe.find("digits"))
    again = read(tmp_path, yaml_file.dumps(first.plain()))
    assert again == first
    assert again.plain() == first.plain()


def test_a_step_may_be_a_bare_name_and_settings_may_be_left_out(tmp_path):
    found = read(tmp_path, HEAD + "steps: [fold, prune: {macs: 0.5}]\n").sequence
    assert [step.name for step in found] == ["fold", "prune"]
    assert found[1].macs == 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            HEAD + "steps:\n  - prune: {channel_ratio: 1.5}\n",
            r"r.yaml:4:28: steps.0.prune.channel_ratio: .*less than 1",
        ),
        (HEAD + "steps:\n  - prune: {structure: '2:4'}\n", r"r.yaml:4:12: steps.0.prune: .*set to zero by sparsify"),
        (HEAD + "steps:\n  - prune: {macz: 0.5}\n", r"r.yaml:4:13: steps.0.prune.macz: .*did you mean macs"),
        (HEAD + "steps:\n  - pruen: {macs: 0.5}\n", r"steps.0.pruen: .*did you mean prune"),
        (HEAD + "steps: []\n", "a recipe without steps does nothing"),
        (HEAD + "steps:\n  - prune: {macs: 0.5}\n    fold: {}\n", "a step is one name and its settings"),
        (HEAD + "steps: [fold]\nbench: {}\n", r"r.yaml:4:1: bench: .*did you mean benchmark"),
        (HEAD + "steps: [fold]\ngate: [{metric: topp1, min: 90%}]\n", r"gate.0.metric: .*top1"),
        (HEAD + "steps: [fold]\nbenchmark: {batches: [0]}\n", r"benchmark.batches.0: .*greater than or equal to 1"),
        (HEAD + "steps: [fold]\nbenchmark: {batches: []}\n", r"benchmark.batches: .*at least 1 item"),
        (
            HEAD + "steps: [fold, quantize: {target: torch}]\n",
            "quantize is for the target torch .*a run exports what it makes",
        ),
        ("data: {name: digits}\nsteps: [fold]\n", "network: this key is missing"),
    ],
)
def test_a_wrong_recipe_is_refused_with_its_place(tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        read(tmp_path, text)


def test_an_unknown_recipe_gets_the_names_there_are(tmp_path):
    with pytest.raises(UsageError, match=r"unknown recipe 'digit'.*digits"):
        recipe.find("digit")
    with pytest.raises(CompressError, match=r"there is no recipe .*none.yaml"):
        recipe.find(str(tmp_path / "none.yaml"))


def test_an_unknown_step_gets_the_nearest():
    with pytest.raises(UsageError, match="did you mean quantize"):
        recipe.step_class("quantise")
