import py_compile
import sys

import pytest
import torch

from compress import networks
from compress.architecture import Architecture
from compress.errors import CompressError, UsageError
from compress.networks import load_user, resolve
from compress.storage import digest_file

LINEAR = "from torch import nn\n\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(12, {classes}))\n"


@pytest.fixture
def write(tmp_path):
    def write(text, name="net.py"):
        (tmp_path / name).write_text(text)
        return f"{tmp_path / name}:build"

    return write


def made_with(user):
    return Architecture("user", user.name, {}, (3, 2, 2), code=user.digest)


def test_the_function_of_the_file_makes_the_network(write, tmp_path):
    text = write(LINEAR.format(classes=4))
    assert resolve(text) == ("user", "build")
    user = load_user(text)
    assert (user.name, user.digest) == ("build", digest_file(tmp_path / "net.py"))
    assert networks.outputs(networks.create(made_with(user), user), (3, 2, 2)) == 4


def test_resolving_a_name_runs_nothing(write, tmp_path):
    resolve(write(f"open({str(tmp_path / 'ran')!r}, 'w')\n"))
    assert not (tmp_path / "ran").exists()


def test_the_bytes_of_the_file_are_run_and_no_byte_code_beside_it(write, tmp_path):
    text = write(LINEAR.format(classes=4))
    py_compile.compile(str(tmp_path / "net.py"))
    (tmp_path / "net.py").write_text(LINEAR.format(classes=5))
    cached = {path: path.read_bytes() for path in (tmp_path / "__pycache__").iterdir()}
    user = load_user(text)
    assert networks.outputs(user.function(), (3, 2, 2)) == 5
    assert {path: path.read_bytes() for path in (tmp_path / "__pycache__").iterdir()} == cached


def test_the_folder_of_the_file_is_not_put_on_the_path(write, tmp_path):
    write("", "beside.py")
    before = list(sys.path)
    with pytest.raises(CompressError, match=r"net\.py cannot be run: it raised ModuleNotFoundError at net\.py:1"):
        load_user(write("import beside\n"))
    assert sys.path == before
    assert not [
        name for name in sys.modules if name.startswith("compress_user_") and not hasattr(sys.modules[name], "build")
    ]


def test_a_function_that_draws_leaves_the_random_state_alone(write):
    user = load_user(write(LINEAR.format(classes=4)))
    torch.manual_seed(3)
    before = torch.get_rng_state()
    networks.create(made_with(user), user)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("text", ["net.py", "net.py:", "user:build", "net.py:a-b"])
def test_text_that_names_no_function_is_refused(text):
    with pytest.raises(UsageError, match="does not name a function in a Python file: write --network path/net"):
        resolve(text)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(CompressError, match=r"cannot read the network's file .*none\.py"):
        load_user(f"{tmp_path}/none.py:build")


def test_a_missing_function_names_the_nearest(write):
    with pytest.raises(UsageError, match=r"unknown function in net\.py 'build': did you mean built\?"):
        load_user(write("def built(): pass\n"))


@pytest.mark.parametrize(
    "body, said",
    [
        ("raise ValueError('no')", "ValueError at net.py:1: no"),
        ("import sys; sys.exit(3)", "SystemExit"),
        ("def", "SyntaxError"),
    ],
)
def test_a_file_that_cannot_be_run_is_refused(write, body, said):
    with pytest.raises(CompressError, match=f"cannot be run: it raised {said}"):
        load_user(write(body + "\n"))


@pytest.mark.parametrize(
    "body, said",
    [
        ("def build(): return 3\n", r"build\(\) returned a int, not a torch.nn.Module"),
        ("def build():\n    return 1 / 0\n", r"build\(\) raised ZeroDivisionError at net.py:2"),
        ("def build(width): pass\n", r"build\(\) raised TypeError.*called without arguments"),
    ],
)
def test_a_function_that_makes_no_network_is_refused(write, body, said):
    user = load_user(write(body))
    with pytest.raises(CompressError, match=said):
        networks.create(made_with(user), user)


def test_without_the_file_the_network_is_not_made(write):
    architecture = made_with(load_user(write(LINEAR.format(classes=4))))
    with pytest.raises(UsageError, match=r"give it again with --network FILE\.py:build"):
        networks.create(architecture)


def test_another_function_is_refused(write):
    text = write(LINEAR.format(classes=4) + "\nother = build\n")
    architecture = made_with(load_user(text))
    with pytest.raises(UsageError, match="was made with the function build, and --network names other"):
        networks.create(architecture, load_user(text.replace(":build", ":other")))


def test_a_changed_file_is_refused_unless_it_is_accepted(write):
    architecture = made_with(load_user(write(LINEAR.format(classes=4))))
    text = write(LINEAR.format(classes=4) + "# changed\n")
    with pytest.raises(CompressError, match=r"the file of build has changed since .* accept_changed=True"):
        networks.create(architecture, load_user(text))
    assert networks.create(architecture, load_user(text, accept_changed=True)) is not None
