import pytest
from command import run


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """A checkpoint of an untrained network for the digits, alone in a folder of its own."""
    path = tmp_path_factory.mktemp("untrained") / "base.safetensors"
    run("import", "--network", "digits_cnn", "--untrained", "-o", path)
    return path
