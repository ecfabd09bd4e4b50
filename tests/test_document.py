"""Values as JSON documents."""

import json

import pytest

from compress import document
from compress.architecture import Architecture
from compress.errors import CompressError

VALUE = Architecture(
    "compress", "resnet20", {"num_classes": 10}, (3, 32, 32), widths={"conv1": (3, 16)}, folded=(("conv1", "bn1"),)
)


def read(text):
    return document.loads(text, "compress thing", 2, Architecture, "the thing a.json")


def edited(**changes):
    return json.dumps({**json.loads(document.dumps("compress thing", 2, VALUE)), **changes})


def test_writing_then_reading_is_the_identity():
    assert read(document.dumps("compress thing", 2, VALUE)) == VALUE


def test_an_older_format_is_read():
    assert read(document.dumps("compress thing", 1, VALUE)) == VALUE


def test_kind_and_format_come_first():
    assert list(json.loads(document.dumps("compress thing", 2, VALUE)))[:2] == ["kind", "format"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON .* cut short"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is not a compress thing"),
        (edited(kind="compress report"), "is not a compress thing but a compress report"),
        (edited(format=None), "names no format number"),
        (edited(format=True), "names no format number"),
        (edited(format=3), "has format 3, and this version of compress reads up to 2. Upgrade"),
        (edited(input_shape=[3, 32]), "not as it should be at input_shape"),
        (edited(name=7), "not as it should be at name"),
        (edited(more=1), "not as it should be at more"),
        (edited(widths={"conv1": ["3", 16]}), r"not as it should be at widths.conv1.0"),
    ],
)
def test_a_wrong_document_is_refused_with_its_place(text, message):
    with pytest.raises(CompressError, match=message):
        read(text)
