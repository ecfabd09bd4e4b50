"""Two thousand random CNNs through pruning, a file, folding and ONNX, each held to the law of channel pruning.

    python benchmarks/random_networks.py check --keep FOLDER
    python benchmarks/random_networks.py write --keep FOLDER

`check` prunes the networks of `tests/prune/random_cnn.py`, from a seed that no test uses, some at a time: in one process they are
pruned and saved, in a fresh one they are loaded again. What is loaded has to be, in float64, the dense network whose
layers do not hear the channels removed. torch-pruning is given the same networks, and what it leaves is held to the same law.
It keeps what is done in FOLDER and goes on after a kill; `write` puts it in `reports/random-networks.*`.
"""

import argparse
import copy
import hashlib
import importlib.metadata
import itertools
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compress import checkpoint, document, parity, storage
from compress.architecture import Architecture
from compress.build import build
from compress.checkpoint import Checkpoint
from compress.device import use
from compress.environment import environment
from compress.errors import CompressError
from compress.export import export
from compress.fold.step import Fold
from compress.networks import UserNetwork
from compress.pipeline import Resources
from compress.prune.allocation import Bounds, channel_cost_of, for_cost, lowest, uniform
from compress.prune.criteria import score_groups
from compress.prune.groups import Group, find_groups, lost
from compress.prune.narrow import Lost, size_of
from compress.prune.step import Prune
from compress.runtime.onnxruntime import OnnxSession
from compress.runtime.torch import TorchSession

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests" / "prune"))

from random_cnn import SHAPE, law, makers, random_cnn, unexplained  # noqa: E402

FIRST, COUNT, CHUNK = 1_000_000, 2_000, 100
EXPORTED = 20
"""Every so-manieth network also goes through ONNX."""
RATIOS = (0.25, 0.5, 0.75)
BOUNDS = Bounds(round_to=1, largest=0.9)
LIMIT = 3600
"""Seconds after which a process with one chunk is ended."""
REPORT = ROOT / "reports" / "random-networks"


def main() -> None:
    """Check or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["check", "write", "prune", "digest"])
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--first", type=int, default=FIRST, help="the first seed")
    parser.add_argument("--count", type=int, default=COUNT, help="how many seeds")
    asked = parser.parse_args()
    use("cpu", 1)
    seeds = range(asked.first, asked.first + asked.count)
    if asked.task == "prune":
        print(json.dumps([pruned(seed, asked.keep) for seed in seeds]))
    elif asked.task == "digest":
        print(
            json.dumps(
                [digest(reloaded(seed, asked.keep)) if saved(seed, asked.keep).exists() else "" for seed in seeds]
            )
        )
    elif asked.task == "write":
        write(asked.keep)
    else:
        for first in seeds[::CHUNK]:
            kept = storage.folder(asked.keep) / f"{first}.json"
            if not kept.exists():
                rows = checked(first, min(CHUNK, seeds.stop - first))
                storage.write_text(kept, json.dumps(rows) + "\n")
                print(first, Counter(row["ended"] for row in rows), flush=True)


def checked(first: int, count: int) -> list[dict[str, Any]]:
    """What became of some networks: pruned and saved in one process, loaded in another."""
    with tempfile.TemporaryDirectory() as folder:
        rows, digests = (apart(task, folder, first, count) for task in ("prune", "digest"))
    for row, found in zip(rows, digests, strict=True):
        if row["ended"] == "held" and row.pop("digest") != found:
            row["ended"] = "other logits in a fresh process"
    return rows


def apart(task: str, folder: str, first: int, count: int) -> Any:
    """A task's result, from a process of its own."""
    words = [
        sys.executable,
        "-W",
        "ignore",
        __file__,
        task,
        "--keep",
        folder,
        "--first",
        str(first),
        "--count",
        str(count),
    ]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, timeout=LIMIT, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def pruned(seed: int, folder: Path) -> dict[str, Any]:
    """One network pruned, saved, and held to the law as it was loaded again; how it ended, and what is worth counting.

    Any failure but a refusal of ours ends as its exception's words, so that the others are still tried.
    """
    network, ratio = random_cnn(seed), RATIOS[seed % len(RATIOS)]
    row: dict[str, Any] = {
        "seed": seed,
        "ratio": ratio,
        "refusals": {},
        "kinds": [type(each).__name__ for each in network.blocks],
    }
    row["torch_pruning"] = peer(copy.deepcopy(network), ratio, seed)
    groups, refusals = find_groups(network, SHAPE)
    row["layers"] = len(makers(network))
    row["refusals"] = Counter(reason(refusal.reason) for refusal in refusals if refusal.layer in makers(network))
    if missing := unexplained(network, groups, refusals):
        return row | {"ended": f"left alone without a word: {', '.join(missing)}"}
    cost = channel_cost_of(max(1, sum(group.channels for group in groups)))
    ratio = min(ratio, 1 - cost({group: BOUNDS.most(group) for group in groups}))  # small groups have less to give
    base = Checkpoint(Architecture("user", "random_cnn", {}, SHAPE, code=user(seed).digest), network.state_dict())
    try:
        found = Prune(channel_ratio=ratio, round_to=1, recalibrate=False)(base, Resources(user=user(seed)))
    except CompressError as error:
        return row | {"ended": f"refused: {error}"}
    except Exception as error:  # what this is here to find
        return row | {"ended": f"{type(error).__name__}: {error}"}
    checkpoint.save(found, saved(seed, folder))
    loaded = reloaded(seed, folder)
    row |= {"digest": digest(loaded), "ended": lawful(network, loaded, chosen(network, groups, ratio), seed)}
    if seed % EXPORTED == 0 and row["ended"] == "held":
        row["hops"] = hops(found, seed, folder)
        row["ended"] = next((f"{hop}: {ended}" for hop, ended in row["hops"].items() if ended != "passed"), "held")
    return row


def chosen(network: nn.Module, groups: tuple[Group, ...], ratio: float) -> dict[str, Lost]:
    """What each layer is to lose, from the network alone."""
    scores, _ = score_groups(network, groups, "l2", Resources())
    cost = channel_cost_of(sum(group.channels for group in groups))
    return lost(lowest(scores, for_cost(uniform, scores, BOUNDS, 1 - ratio, cost)))


def lawful(network: nn.Module, narrowed: nn.Module, going: dict[str, Lost], seed: int) -> str:
    """Whether the law is held, in a word or with what is against it."""
    difference, allowed, change = law(copy.deepcopy(network), copy.deepcopy(narrowed), going, seed)
    if not difference <= allowed:
        return f"another function: logits differ by {difference:.1e}, rounding explains {allowed:.1e}"
    return "held" if change > 100 * allowed else "void: what was removed changes nothing"


def user(seed: int) -> UserNetwork:
    """Where the network of a seed comes from."""
    return UserNetwork(
        partial(random_cnn, seed), "random_cnn", storage.digest_file(Path(random_cnn.__code__.co_filename))
    )


def saved(seed: int, folder: Path) -> Path:
    """A pruned network's file."""
    return folder / f"{seed}.safetensors"


def reloaded(seed: int, folder: Path) -> nn.Module:
    """The network of that file."""
    return build(checkpoint.load(saved(seed, folder)), user(seed))


def digest(network: nn.Module) -> str:
    """Of a network's logits for images of noise."""
    with torch.no_grad():
        return hashlib.sha256(network(noise(2)).numpy().tobytes()).hexdigest()


def noise(count: int) -> torch.Tensor:
    """Images."""
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(0))


def hops(found: Checkpoint, seed: int, folder: Path) -> dict[str, str]:
    """Whether folding and ONNX Runtime answer as before."""
    path = folder / f"{seed}.onnx"
    folded = Fold()(found, Resources(user=user(seed)))
    export(folded, path, user=user(seed))
    sides = {
        "pruned": TorchSession(build(found, user(seed)), SHAPE),
        "folded": TorchSession(build(folded, user(seed)), SHAPE),
    }
    sides |= {"onnx": OnnxSession(path.read_bytes())}
    logits = [session(noise(8).numpy()) for session in sides.values()]
    errors = [parity.difference(before, after)["normalised_max_error"] for before, after in itertools.pairwise(logits)]
    return {
        hop: "passed" if error <= parity.EXACT else f"an error of {error:.1e}"
        for hop, error in zip(list(sides)[1:], errors, strict=True)
    }


def peer(network: Any, ratio: float, seed: int) -> str:
    """What torch-pruning makes of a network at the same ratio, told that the classifier stays: held, or what went wrong."""
    import torch_pruning

    whole, names = copy.deepcopy(network), {layer: name for name, layer in network.named_modules()}
    left = {
        layer: tuple(list(range(size)) for size in size_of(network.get_submodule(layer))) for layer in makers(network)
    }
    going: dict[str, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    last = [layer for layer in network.classifier.modules() if isinstance(layer, (nn.Linear, nn.Conv2d))][-1]
    try:
        pruner = torch_pruning.pruner.BasePruner(
            network,
            torch.rand(1, *SHAPE),
            torch_pruning.importance.MagnitudeImportance(p=2),
            pruning_ratio=ratio,
            ignored_layers=[last],
        )
        for group in pruner.step(interactive=True):
            for dependency, places in group.items:
                layer = names.get(dependency.target.module)
                for side in (0, 1) if layer in left else ():
                    goes = pruner.DG.is_out_channel_pruning_fn if side else pruner.DG.is_in_channel_pruning_fn
                    if goes(dependency.handler):
                        gone = [left[layer][side][place] for place in set(places)]
                        going[layer][side].extend(gone)
                        left[layer][side][:] = [channel for channel in left[layer][side] if channel not in gone]
            group.prune()
    except Exception as error:  # whatever the other tool raises is its own
        return f"raised while pruning: {type(error).__name__}"
    try:
        with torch.no_grad():
            answer = network(noise(2))
    except Exception as error:
        return f"the network it leaves raises: {type(error).__name__}"
    if answer.shape != (2, 5):
        return "another number of classes"
    if not any(going.values()):
        return "nothing pruned"
    return "held" if lawful(whole, network, going, seed) == "held" else "another function"


def reason(words: str) -> str:
    """A refusal's reason without the names of layers and numbers in it."""
    return re.sub(r"^\S+\.\S+", "a layer's own", re.sub(r"\d+", "N", words)).replace("|", "/")


def write(keep: Path) -> None:
    """The counts of all that is done."""
    rows = [row for path in sorted(keep.glob("*.json")) for row in json.loads(path.read_text())]
    made = counted(rows) | {"environment": document.plain(environment(1))}
    storage.write_text(REPORT.with_suffix(".json"), json.dumps(made, indent=1) + "\n")
    storage.write_text(REPORT.with_suffix(".md"), markdown(made))
    print(markdown(made))


def counted(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How many networks ended how, and how many layers were left alone why."""
    refusals: Counter[str] = Counter()
    for row in rows:
        refusals.update(row["refusals"])
    return {
        "seeds": [min(row["seed"] for row in rows), max(row["seed"] for row in rows)],
        "networks": len(rows),
        "ended": Counter(row["ended"] for row in rows).most_common(),
        "failures": [row["seed"] for row in rows if row["ended"] != "held"],
        "onnx": sum("hops" in row for row in rows),
        "layers": sum(row["layers"] for row in rows),
        "refusals": refusals.most_common(),
        "kinds": Counter(kind for row in rows for kind in set(row["kinds"])).most_common(),
        "torch_pruning": Counter(row["torch_pruning"] for row in rows).most_common(),
        "version": importlib.metadata.version("torch-pruning"),
    }


def markdown(made: dict[str, Any]) -> str:
    """The counts, as a page."""
    held = dict(made["ended"]).get("held", 0)
    theirs = dict(made["torch_pruning"]).get("held", 0)
    left = sum(count for _, count in made["refusals"])
    lines = [
        "# Random CNNs, pruned",
        "",
        f"{made['networks']} networks of `tests/prune/random_cnn.py`, seeds {made['seeds'][0]} to {made['seeds'][1]}, drawn to be hard: every block below is in",
        f"many of them. A share of {', '.join(f'{ratio:g}' for ratio in RATIOS[:-1])} or {RATIOS[-1]:g} of all channels, or what there is to give, goes by l2, without recalibration. Each is saved, loaded",
        "in a fresh process with the same logits bit for bit, and is, in float64, the dense network whose layers do not hear",
        f"the channels removed; {made['onnx']} also went through folding, ONNX and ONNX Runtime. Made by `benchmarks/random_networks.py`.",
        "",
        f"Held: {held} of {made['networks']}. With torch-pruning {made['version']}, told the same share and which layer is the classifier: {theirs}.",
        "",
        "| how they ended | networks |",
        "| --- | --- |",
        *(f"| {ended} | {count} |" for ended, count in made["ended"]),
        "",
        "| with torch-pruning | networks |",
        "| --- | --- |",
        *(f"| {ended} | {count} |" for ended, count in made["torch_pruning"]),
        "",
        f"Of {made['layers']} layers that make channels, {left} keep all of theirs, each by name:",
        "",
        "| reason | layers |",
        "| --- | --- |",
        *(f"| {words} | {count} |" for words, count in made["refusals"]),
        "",
        f"Networks with each block: {', '.join(f'{kind} {count}' for kind, count in made['kinds'])}.",
    ]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
