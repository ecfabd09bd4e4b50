"""What the steps `PrepareQAT` and `ConvertQAT` do with a checkpoint."""

import copy
import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, fx, nn

from compress.architecture import Prepared
from compress.build import build, structure
from compress.checkpoint import Checkpoint
from compress.data.fits import fits
from compress.fold.structure import find_pairs, fold
from compress.pipeline import Change, Resources
from compress.quantity import counted
from compress.quantize.calibration import batches, calibrated
from compress.quantize.ptq import finish, held
from compress.quantize.qat_graph import ROUNDINGS, around, folded_calls, insert, scheme_of
from compress.quantize.qat_rounding import Rounding, roundings
from compress.quantize.sequence import operators, trace
from compress.quantize.step import distance, require_integers
from compress.train.loop import copy as state_of

if TYPE_CHECKING:
    from compress.quantize.qat_step import PrepareQAT

CHECKED = 2
"""Images of noise on which the converted network is held against the one that was trained."""


def prepare(step: "PrepareQAT", checkpoint: Checkpoint, resources: Resources) -> Change:
    """A checkpoint's network with roundings in it, calibrated; raises CompressError where that cannot be."""
    data = resources.need_data(step.name)
    fits(data.spec, checkpoint.architecture, checkpoint.dataset)
    network = build(checkpoint, resources.user)
    shape = checkpoint.architecture.input_shape
    pairs, refusals = find_pairs(network, shape)
    traced = folded_calls(network, pairs, shape)
    prepared = Prepared(
        step.target,
        operators(traced),
        pairs,
        step.step_sizes,
        step.norms,
        step.ranges,
        step.weight_bits,
        step.activation_bits,
    )
    found = around(network, traced, prepared).eval()
    count, labels = min(step.images, len(data.calibration)), set[int]()
    _calibrate(found, batches(data, count, step.batch, labels, resources.progress))
    architecture = dataclasses.replace(checkpoint.architecture, prepared=prepared)
    notes = (
        counted(len(_roundings(found)), "rounding"),
        *calibrated(data, step.images, count, labels),
        f"{counted(len(pairs), 'batch norm')} to fold",
    )
    return Change(architecture, state_of(found), refusals, notes)


def convert(checkpoint: Checkpoint, resources: Resources) -> Change:
    """The INT8 network of a prepared checkpoint, as `Quantize` would write it."""
    prepared = checkpoint.architecture.prepared
    assert prepared is not None, "the step requires it"
    trained = cast(fx.GraphModule, build(checkpoint, resources.user))
    own = {name: tensor for name, tensor in checkpoint.weights.items() if not name.startswith(f"{ROUNDINGS}.")}
    plain = structure(checkpoint.architecture, resources.user)
    floating = dataclasses.replace(
        checkpoint,
        architecture=dataclasses.replace(checkpoint.architecture, prepared=None, folded=prepared.folded),
        weights=fold(own, plain, prepared.folded),
    )
    traced = trace(build(floating, resources.user), checkpoint.architecture.input_shape)
    result = finish(_with_ranges(traced, trained, prepared), traced, scheme_of(prepared))
    require_integers(result)
    after = held(floating, result)
    images = torch.randn(CHECKED, *checkpoint.architecture.input_shape, generator=torch.Generator().manual_seed(0))
    apart = distance(images, trained, result.reference, build(after, resources.user))
    notes = [
        f"{counted(len(prepared.folded), 'batch norm')} folded",
        "the answers are those of the trained network"
        + (f" up to a share of {apart:.1e} of their length" if apart else ", bit for bit"),
    ]
    if result.silent:
        notes.append(f"zero in all of the training, and will stay so: {counted(result.silent, 'activation')}")
    return Change(after.architecture, after.weights, result.refusals, tuple(notes))


def _calibrate(network: fx.GraphModule, images: Iterable[Tensor]) -> None:
    """Let the ranges grow to all that is met, in inference mode."""
    for rounding in _roundings(network):
        rounding.calibrating = True
    with torch.no_grad():
        for batch in images:
            network(batch)


def _with_ranges(traced: fx.GraphModule, trained: fx.GraphModule, prepared: Prepared) -> fx.GraphModule:
    """The folded graph with the roundings of the trained one."""
    found = insert(copy.deepcopy(traced), prepared)
    for nodes, rounding in zip(roundings(found).values(), _roundings(trained), strict=True):
        for node in nodes:
            found.set_submodule(str(node.target), rounding)
    return found


def _roundings(network: fx.GraphModule) -> list[Rounding]:
    """The roundings of a prepared network, in the order of its calls."""
    return [cast(Rounding, each) for each in cast(nn.ModuleList, network.get_submodule(ROUNDINGS))]
