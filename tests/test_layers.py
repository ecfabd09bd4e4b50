"""Imports go one way: a module takes from its own layer or from those below it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LAYERS = [
    {"", "errors", "progress", "quantity", "interval", "storage", "document", "yaml_file"},
    {"architecture", "data.spec", "measurement", "sensitivity", "limit", "demand", "quantize.target"},
    {"checkpoint", "device", "nvml", "networks", "data", "trace", "macs", "sparsity", "environment"},
    {
        "prune.blocks",
        "prune.narrow",
        "fold.batchnorm",
        "fold.structure",
        "quantize.graph",
        "quantize.sequence",
        "quantize.bias",
        "quantize.packing",
        "quantize.calibration",
        "quantize.histogram",
        "quantize.observers",
        "quantize.placement",
        "quantize.qat_rounding",
        "quantize.qat_graph",
    },
    {"build", "importing"},
    {"export", "runtime", "lint"},
    {
        "evaluate",
        "parity",
        "divergence",
        "self_test",
        "benchmark",
        "interleave",
        "process",
        "subject",
        "measured",
        "layers",
    },
    {"pipeline"},
    {"train", "prune", "fold", "quantize"},
    {"report", "gate", "gate_rendering", "starting_limits", "judge"},
    {"recipe", "explain"},
    {"verify", "execute"},
    {"cli", "__main__"},
]
"""From the bottom up. A module belongs to the longest name here that it starts with."""

NO_TORCH = [
    "errors",
    "progress",
    "storage",
    "document",
    "yaml_file",
    "architecture",
    "data.spec",
    "measurement",
    "sensitivity",
    "quantize.target",
    "limit",
    "gate",
]
"""Values: importing them imports no torch, at whatever depth."""


def modules():
    for folder, prefix in ((ROOT / "compress", ""), (ROOT / "cli", "cli")):
        for path in sorted(folder.rglob("*.py")):
            parts = [prefix] if prefix else []
            parts += [part for part in path.relative_to(folder).with_suffix("").parts if part != "__init__"]
            yield ".".join(parts), path


def layer(name):
    found = [
        (len(known), rank)
        for rank, layer in enumerate(LAYERS)
        for known in layer
        if name == known or (known and name.startswith(f"{known}."))
    ]
    assert found, f"{name} is in no layer"
    return max(found)[1]


def imports(path, name):
    """Names inside the package that a file imports, wherever in the file."""
    known = {module for module, _ in modules()}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (
                alias.name.removeprefix("compress").lstrip(".")
                for alias in node.names
                if alias.name.split(".")[0] == "compress"
            )
        elif isinstance(node, ast.ImportFrom):
            source = f"cli{'.' if node.module else ''}{node.module or ''}" if node.level else node.module or ""
            if not node.level and source.split(".")[0] != "compress":
                continue
            source = source.removeprefix("compress").lstrip(".")
            for alias in node.names:
                inner = f"{source}.{alias.name}".lstrip(".")
                yield inner if inner in known else source


@pytest.mark.parametrize(("name", "path"), [pytest.param(*each, id=each[0] or "compress") for each in modules()])
def test_a_module_takes_only_from_its_own_layer_and_those_below(name, path):
    above = [found for found in imports(path, name) if layer(found) > layer(name)]
    assert not above, f"{name} imports {above} from above"


@pytest.mark.parametrize("name", NO_TORCH)
def test_values_are_imported_without_torch(name):
    import subprocess
    import sys

    code = f"import sys, compress.{name}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("path", [pytest.param(path, id=str(path.relative_to(ROOT))) for _, path in modules()])
def test_a_file_stays_short_and_says_what_it_is(path):
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), "no docstring"
    assert len(text.splitlines()) <= 320
