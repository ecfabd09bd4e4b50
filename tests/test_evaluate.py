"""How often a session is right."""

import ast
import dataclasses
import typing
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from compress import data, networks
from compress.data.arrays import ArraySplit, Part
from compress.data.spec import DatasetSpec, Preprocessing
from compress.data.splits import Data, LearningData
from compress.errors import CompressError
from compress.evaluate import agreement, evaluate, on_test
from compress.pipeline import Resources
from compress.runtime.null import Clock, NullSession
from compress.runtime.torch import TorchSession

CLASSES = 10
SHAPE = (1, 2, 5)
SPEC = DatasetSpec("pixels", tuple("abcdefghij"), SHAPE, Preprocessing("grey", (0.0,), (1.0,)), "sha256:0")
SAID = {"name": "validation", "runtime": "null"}
ROOT = Path(__file__).parents[1]


def split(pixels, labels, labelled=True):
    """Images of ten pixels each, which a null session gives back as their logits."""
    images = np.asarray(pixels, np.uint8).reshape(-1, 2, 5, 1)
    return ArraySplit(Part(images, np.asarray(labels, np.int64)), np.arange(len(images)), labelled)


def null(classes=CLASSES):
    return NullSession(lambda: 0.0, Clock(), SHAPE, classes)


def one_hot(labels):
    return 255 * np.eye(CLASSES)[labels]


@given(
    arrays(np.uint8, (7, CLASSES), elements=st.integers(0, 5)),
    arrays(np.int64, 7, elements=st.integers(0, CLASSES - 1)),
    st.integers(1, 8),
)
def test_accuracy_counts_the_images_whose_class_ranks_high_enough(pixels, labels, batch):
    found = evaluate(null(), split(pixels, labels), SPEC, batch=batch, **SAID)
    ranks = [
        sum((other > image[label]) or (other == image[label] and place < label) for place, other in enumerate(image))
        for image, label in zip(pixels.tolist(), labels.tolist(), strict=True)
    ]
    top1, top5 = found.measurements
    assert (top1.metric, top5.metric) == ("top1", "top5")
    assert top1.median == pytest.approx(100 * sum(rank == 0 for rank in ranks) / 7)
    assert top5.median == pytest.approx(100 * sum(rank < 5 for rank in ranks) / 7)
    assert found.correct == "".join("01"[rank == 0] for rank in ranks)


def test_a_measurement_says_how_it_was_taken():
    found = evaluate(null(), split(one_hot([3, 1]), [3, 2]), SPEC, **SAID)
    assert found.measurements[0].conditions == {"runtime": "null", "split": "validation", "images": 2}


def test_several_views_are_averaged_and_the_measurement_says_so():
    # mirrored, the pixel of class 3 is that of class 1 and the other way round: the two are level, and 1 is the lower
    images = split(one_hot([3, 1]), [3, 1])
    plain, flipped = (evaluate(null(), images, SPEC, tta=tta, **SAID) for tta in ("none", "flip"))
    assert (plain.correct, flipped.correct) == ("11", "01")
    assert plain.measurements[0].conditions | {"tta": "flip"} == flipped.measurements[0].conditions


def test_five_classes_have_no_top5():
    spec = dataclasses.replace(SPEC, classes=tuple("abcde"))
    found = evaluate(null(5), split(one_hot([3, 1]), [3, 1]), spec, **SAID)
    assert [each.metric for each in found.measurements] == ["top1"]


def test_progress_ends_at_the_number_of_images():
    calls = []
    evaluate(null(), split(one_hot([1] * 5), [1] * 5), SPEC, batch=2, progress=lambda *call: calls.append(call), **SAID)
    assert calls == [("evaluate", done, 5, "") for done in (2, 4, 5)]


def test_agreement_needs_no_labels_and_counts_images_with_the_same_class():
    class Other(nn.Module):
        def forward(self, x):
            return x.flatten(1) * torch.tensor([1.0] * 5 + [-1.0] * 5)

    images = split(one_hot([0, 1, 5, 6]), [-1] * 4, labelled=False)
    assert agreement(null(), null(), images, SPEC) == 1
    assert agreement(null(), TorchSession(Other(), SHAPE), images, SPEC, batch=3) == 0.5


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("everywhere", [True, False])
def test_logits_that_are_not_numbers_are_refused(number, everywhere):
    class Broken(nn.Module):
        def forward(self, x):
            logits = x.flatten(1).clone()
            logits[: len(x) if everywhere else 1] *= number
            return logits

    with pytest.raises(CompressError, match=rf"NaN or infinite for {4 if everywhere else 1} of 4 images"):
        evaluate(TorchSession(Broken(), SHAPE), split(one_hot([1, 2, 3, 4]), [1, 2, 3, 4]), SPEC, **SAID)


def test_another_number_of_classes_is_refused():
    with pytest.raises(CompressError, match=r"logits of shape \(2, 9\), and pixels has 10 classes"):
        evaluate(null(9), split(one_hot([1, 2]), [1, 2]), SPEC, **SAID)


@pytest.mark.parametrize("label", [-1, CLASSES])
def test_a_label_that_is_no_class_is_refused(label):
    with pytest.raises(CompressError, match=f"labels from .*{label}.* 10 classes are numbered from 0"):
        evaluate(null(), split(one_hot([1, 2]), [1, label]), SPEC, **SAID)


def test_images_without_labels_and_no_images_are_refused():
    with pytest.raises(CompressError, match="validation images of pixels have no labels"):
        evaluate(null(), split(one_hot([1]), [-1], labelled=False), SPEC, **SAID)
    with pytest.raises(CompressError, match="pixels holds no images to evaluate"):
        evaluate(null(), split([], []), SPEC, **SAID)
    with pytest.raises(CompressError, match="pixels holds no images to compare"):
        agreement(null(), null(), split([], []), SPEC)


def test_images_of_another_size_are_refused():
    larger = NullSession(lambda: 0.0, Clock(), (1, 3, 5), CLASSES)
    with pytest.raises(CompressError, match=r"takes images of shape \(N, 1, 3, 5\), and got"):
        evaluate(larger, split(one_hot([1]), [1]), SPEC, **SAID)


def test_the_test_images_are_those_on_test_reads():
    right, wrong = split(one_hot([1, 2]), [1, 2]), split(one_hot([1, 2]), [2, 1])
    found = on_test(null(), Data(LearningData(SPEC, wrong, wrong, wrong), right), runtime="null")
    assert (found.correct, found.measurements[0].conditions["split"]) == ("11", "test")


def test_nothing_but_evaluate_reads_the_test_images():
    readers = {
        path.relative_to(ROOT).as_posix()
        for folder in ("compress", "cli")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "test"
    }
    assert readers == {"compress/evaluate.py"}


def test_steps_are_given_data_that_has_no_test_images():
    given = typing.get_type_hints(Resources, vars(data.splits) | vars(networks))["data"]
    assert given == LearningData | None
    assert "test" not in {field.name for field in dataclasses.fields(LearningData)}
