"""What the step `Sparsify` does with a checkpoint: weights of its network set to zero, at once or while it trains."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from compress import storage
from compress.build import build
from compress.checkpoint import Checkpoint
from compress.errors import CompressError
from compress.networks.weights import load
from compress.pipeline import Change, Resources
from compress.prune import weights
from compress.prune.calibration import batches
from compress.prune.recalibrate import batch_norms, recalibrate
from compress.prune.schedules import SCHEDULES, rounds_done
from compress.prune.sensitivity import measure, shares
from compress.prune.zeroable import input_axis, layers_to_zero, score_weights, weight_of
from compress.quantity import show
from compress.sensitivity import beside
from compress.train.distributed import processes
from compress.train.loop import steps_per_epoch
from compress.train.training import train

if TYPE_CHECKING:
    from compress.prune.sparsify import Sparsify

Zeros = dict[str, Tensor]
"""For each layer, True where a weight is to be zero."""
Choose = Callable[[nn.Module, float], Zeros]
"""What of a network is to be zero, all that is already included, when so much of the climb is done, from 0 to 1."""
TOLERANCE = 1e-6


@dataclasses.dataclass(frozen=True)
class Pool:
    """Layers whose weights are ranked together: `share` of them are zero in the end, and `zeros` were before."""

    layers: tuple[str, ...]
    share: float
    zeros: int


class Zeroing:
    """Zeroes weights in rounds, evenly spread over the first `steps` of a training, and holds them at zero.

    What it is called with is an `after_step` of the training loop; a run that goes on begins with what is zero then.
    """

    def __init__(self, choose: Choose, rounds: int, steps: int) -> None:
        self.zeros: Zeros = {}
        self._choose, self._rounds, self._steps, self._done = choose, rounds, steps, -1

    def __call__(self, network: nn.Module, taken: int) -> None:
        """Hold what has gone, and zero what is due after so many steps."""
        hold(network, self.zeros)
        due = rounds_done(taken, self._steps, self._rounds)
        if due > self._done:
            self._done, self.zeros = due, self._choose(network, due / self._rounds)
            hold(network, self.zeros)


def hold(network: nn.Module, zeros: Zeros) -> None:
    """Set weights of a network to zero, in place."""
    for layer, places in zeros.items():
        weight = weight_of(network, layer)
        weight.masked_fill_(places.to(weight.device), 0)


def sparsify(step: "Sparsify", checkpoint: Checkpoint, resources: Resources) -> Change:
    """Zero weights of a checkpoint as `step` says; raises CompressError where no layer has any to give."""
    network = build(checkpoint, resources.user)
    layers, refusals = layers_to_zero(network, step.exclude, fours=step.structure == "2:4")
    if not layers:
        found = "; ".join(f"{refusal.layer}: {refusal.reason}" for refusal in refusals[:3])
        raise CompressError(
            f"no weight of this network can be zeroed. {found or 'It has no convolution or linear layer'}."
        )
    if step.structure == "2:4":
        choose: Choose = partial(_two_of_four, step, layers, resources)
    else:
        choose = partial(_lowest, step, _pools(step, checkpoint, network, layers, resources), resources)
    if step.epochs:
        change = _trained(step, choose, checkpoint, resources, network)
    else:
        change = _at_once(step, choose, checkpoint, resources, network)
    zeros = {layer: weight_of(network, layer) == 0 for layer in layers}
    masked = {*checkpoint.architecture.masked, *(layer for layer, places in zeros.items() if places.any())}
    return dataclasses.replace(
        change,
        architecture=dataclasses.replace(
            checkpoint.architecture, masked=tuple(name for name, _ in network.named_modules() if name in masked)
        ),
        weights=network.state_dict(),
        refusals=refusals,
        notes=(_counted(step, zeros), _stored(checkpoint.weights, network.state_dict()), *change.notes),
    )


def _at_once(
    step: "Sparsify", choose: Choose, checkpoint: Checkpoint, resources: Resources, network: nn.Module
) -> Change:
    """Zero weights of `network`, in place, without training."""
    hold(network, choose(network, 1.0))
    notes: tuple[str, ...] = ()
    if step.recalibrate and batch_norms(network):
        recalibrate(network.to(resources.device), batches(resources, step.images, "sparsify", augmented=True))
        notes = (
            f"batch norms recalibrated on {min(step.images, len(resources.need_data('sparsify').calibration))} images",
        )
    return Change(checkpoint.architecture, network.cpu().state_dict(), notes=notes)


def _trained(
    step: "Sparsify", choose: Choose, checkpoint: Checkpoint, resources: Resources, network: nn.Module
) -> Change:
    """Zero weights while the network trains; the result is loaded into `network`, in place."""
    data = resources.need_data("sparsify")
    training = step.training.model_copy(update={"epochs": step.epochs})
    total = step.epochs * steps_per_epoch(len(data.train), training.batch * processes())
    rounds = 1 if step.schedule == "one-shot" else step.rounds
    zeroing = Zeroing(choose, rounds, max(1, round(step.climb * total)))
    settings = {"sparsify": step.model_dump(mode="json", exclude={"training"})}
    change = train(training, checkpoint, resources, after_step=(zeroing,), identity=settings)
    load(network, change.weights)
    hold(network, zeroing.zeros)  # an average of the weights still remembers those that went late
    return change


def _two_of_four(
    step: "Sparsify", layers: Sequence[str], resources: Resources, network: nn.Module, done: float
) -> Zeros:
    scores = score_weights(network, layers, step.criterion, resources, step.images)
    return {
        layer: weights.two_of_four(own, input_axis(network, layer)) | (weight_of(network, layer) == 0)
        for layer, own in scores.items()
    }


def _lowest(step: "Sparsify", pools: Sequence[Pool], resources: Resources, network: nn.Module, done: float) -> Zeros:
    layers = [layer for pool in pools for layer in pool.layers]
    scores = score_weights(network, layers, step.criterion, resources, step.images, step.largest)
    zeros: Zeros = {}
    for pool in pools:
        own = {layer: scores[layer] for layer in pool.layers}
        total = sum(each.numel() for each in own.values())
        share = SCHEDULES[step.schedule](pool.zeros / total, pool.share, done)
        most = sum(int(each.isfinite().sum()) for each in own.values())  # a small layer is not rounded to nothing
        zeros |= weights.lowest(own, max(pool.zeros, min(most, round(share * total))))
    return zeros


def _pools(
    step: "Sparsify", checkpoint: Checkpoint, network: nn.Module, layers: tuple[str, ...], resources: Resources
) -> list[Pool]:
    """Which layers' weights are ranked together, and how many of them are to go."""
    assert step.sparsity is not None, "the step asks for it"
    before = {layer: int((weight_of(network, layer) == 0).sum()) for layer in layers}
    if step.allocation == "global":
        return [Pool(layers, step.sparsity, sum(before.values()))]
    given = dict.fromkeys(layers, step.sparsity)
    if step.allocation == "sensitivity":
        path = beside(resources.source, "weights") if resources.source else None
        found = measure(checkpoint, resources, "weights", step.criterion, images=step.images, path=path)
        sizes = {layer: weight_of(network, layer).numel() for layer in layers}
        given = shares(found, sizes, step.sparsity, step.largest)
        most = sum(given[layer] * size for layer, size in sizes.items()) / sum(sizes.values())
        if most < step.sparsity - TOLERANCE:
            raise CompressError(
                f"a sparsity of {step.sparsity:g} was asked for, and {most:.3f} is the most where no layer gives more than "
                f"{found.ratios[-1]:g}, the highest ratio its sensitivity was measured at, or {step.largest:g} (`largest`). "
                "Ask for less, or use another allocation."
            )
    return [Pool((layer,), given[layer], before[layer]) for layer in layers]


def _counted(step: "Sparsify", zeros: Zeros) -> str:
    gone, total = sum(int(places.sum()) for places in zeros.values()), sum(places.numel() for places in zeros.values())
    bound = "two of every four at least" if step.structure == "2:4" else f"at most {step.largest:.0%} of any one"
    return f"{gone:,} of {total:,} weights in {len(zeros)} layers are zero ({gone / total:.2%}), {bound}"


def _stored(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> str:
    raw = sum(tensor.nbytes for tensor in after.values())
    return (
        f"no file gets smaller by this: a zero takes as much room as any number, {show(raw, 'B')} in all; "
        f"gzip makes {show(gzipped(after), 'B')} of it, and {show(gzipped(before), 'B')} before"
    )


def gzipped(tensors: Mapping[str, Tensor]) -> int:
    """Bytes that gzip makes of some tensors, one after the other."""
    flat = (tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for tensor in tensors.values())
    return storage.gzipped(each.numpy().tobytes() for each in flat)
