import dataclasses

import numpy as np
import pytest
import torch
from digits_like import base, resources, seen
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from compress.architecture import Quantization
from compress.build import build
from compress.data.normalise import normalise
from compress.errors import CompressError, UsageError
from compress.pipeline import Resources
from compress.prune.groups import find_groups, lost
from compress.prune.masks import mask
from compress.prune.sensitivity import CRITERION, measure, shares
from compress.prune.sensitivity_plot import plot
from compress.prune.sparsify import Sparsify
from compress.sensitivity import Sensitivity, beside

RATIOS = (0.5, 0.9)


def measured(checkpoint=None, given=None, structure="weights", criterion=None, **options):
    options.setdefault("ratios", RATIOS)
    return measure(checkpoint or base(), given or resources(), structure, criterion or CRITERION[structure], **options)


def logits(network, given=None):
    (batch,) = (given or resources()).data.validation.batches(1000)
    with torch.inference_mode():
        return network(normalise(batch[0], resources().data.spec.preprocessing)), batch[1]


def top1(network):
    answers, labels = logits(network)
    return 100 * float((answers.argmax(1) == labels).double().mean())


def test_each_layer_is_measured_as_if_it_alone_were_sparse():
    found = measured()
    assert (found.measure, found.images, found.whole) == ("top1", 40, pytest.approx(top1(build(base()))))
    for layer in ("conv2", "linear"):
        others = tuple(part for part in found.parts if part != layer)
        for ratio, figure in zip(RATIOS, found.parts[layer], strict=True):
            alone = Sparsify(sparsity=ratio, exclude=others, recalibrate=False)(base(), resources())
            assert figure == pytest.approx(top1(build(alone)))
    assert len({figure for part in found.parts.values() for figure in part}) > 3, "all the same would show nothing"


def test_weights_that_have_seen_the_validation_images_are_judged_by_how_far_the_logits_move():
    found = measured(seen(base()))
    assert (found.measure, found.whole) == ("distance", 0)
    before, _ = logits(build(base()))
    alone = Sparsify(sparsity=0.9, exclude=tuple(part for part in found.parts if part != "conv3"), recalibrate=False)
    after, _ = logits(build(alone(base(), resources())))
    distance = float((after - before).norm() / before.norm())
    assert found.parts["conv3"][1] == pytest.approx(distance, rel=1e-5)
    assert found.parts["conv3"][1] != pytest.approx(1.01 * distance, rel=1e-5)
    assert all(part[0] < part[1] for part in found.parts.values()), "more weights gone, further away"


def test_a_group_is_measured_as_if_nobody_heard_its_weakest_channels():
    found = measured(seen(base()), structure="channels")
    network = build(base())
    groups = {group.name: group for group in find_groups(network, (1, 32, 32))[0]}
    assert found.parts.keys() == groups.keys()
    assert [refusal.layer for refusal in found.refusals] == ["linear"]
    group = groups["block3.conv1"]
    weakest = network.block3.conv1.weight.flatten(1).norm(dim=1).sort(stable=True).indices[:32].tolist()
    before, after = logits(network)[0], logits(mask(network, lost({group: weakest})))[0]
    assert found.parts["block3.conv1"][0] == pytest.approx(float((after - before).norm() / before.norm()), rel=1e-4)


def test_measuring_leaves_the_checkpoint_as_it_was():
    before = base().fingerprint
    measured(ratios=(0.5,))
    assert dataclasses.replace(base()).fingerprint == before


class Killed(Exception):
    pass


def test_a_measurement_that_was_killed_goes_on_where_it_was(tmp_path):
    path, straight, told = tmp_path / "s.json", measured(), []

    def killed(task, done, total, detail):
        if done == 7:
            raise Killed

    with pytest.raises(Killed):
        measured(given=dataclasses.replace(resources(), progress=killed), path=path)
    resumed = measured(given=dataclasses.replace(resources(), progress=lambda *news: told.append(news[1])), path=path)
    assert told == list(range(7, 17)), "three parts of two ratios were done"
    assert resumed == straight
    told.clear()
    assert measured(path=path) == straight
    assert not told


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    path = tmp_path_factory.mktemp("sensitivity") / "s.json"
    measured(path=path)
    return path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": 20}, "images was 40 and is 20"),
        ({"ratios": (0.5,)}, r"ratios was \(0.5, 0.9\) and is \(0.5,\)"),
        ({"criterion": "taylor"}, "criterion was magnitude and is taylor"),
        ({"checkpoint": base(1)}, "checkpoint was sha256:"),
        ({"structure": "channels"}, "structure was weights and is channels"),
        ({"given": dataclasses.replace(resources(), seed=3)}, "seed was 0 and is 3"),
    ],
)
def test_the_measurement_of_another_question_is_refused_with_the_difference(stored, change, words):
    content = stored.read_bytes()
    with pytest.raises(UsageError, match=f"holds another measurement: .*{words}"):
        measured(path=stored, **change)
    assert stored.read_bytes() == content


def test_what_cannot_be_measured_says_why():
    with pytest.raises(UsageError, match="sensitivity needs images: give --data"):
        measured(given=Resources())
    with pytest.raises(UsageError, match=r"cannot give up 1.5 of itself: give ratios between 0 and 1"):
        measured(ratios=(0.5, 1.5))
    with pytest.raises(UsageError, match="unknown criterion 'l7'"):
        measured(structure="channels", criterion="l7")
    architecture = dataclasses.replace(base().architecture, quantization=Quantization("t", "o", ()))
    with pytest.raises(CompressError, match=r"sensitivity needs an unquantized network.*quantization comes last"):
        measured(dataclasses.replace(base(), architecture=architecture))
    blank = {name: torch.zeros_like(tensor) for name, tensor in base().weights.items()}
    with pytest.raises(CompressError, match="answers every image with zeros"):
        measured(dataclasses.replace(base(), weights=blank))
    loud = {name: tensor * 1e30 if "conv" in name else tensor for name, tensor in base().weights.items()}
    with pytest.raises(CompressError, match="logits are NaN or infinite"):
        measured(dataclasses.replace(base(), weights=loud))


HARMS = st.lists(st.lists(st.floats(-5, 90), min_size=3, max_size=3), min_size=1, max_size=5)
RATIOS_OF_THREE = (0.5, 0.8, 0.9)


def found_with(parts, measure="top1"):
    figures = {"top1": lambda harm: 100 - harm, "distance": lambda harm: harm}[measure]
    named = {str(number): tuple(figures(harm) for harm in part) for number, part in enumerate(parts)}
    whole = 100.0 if measure == "top1" else 0.0
    return Sensitivity("c", "d", "weights", "magnitude", RATIOS_OF_THREE, 10, 0, measure, whole, named, ())


def least(parts, sizes, share=None, given=None):
    """The least sum of costs for a share of all, or for the shares given, where a part may mix the ratios measured."""
    points = np.array([0.0, *RATIOS_OF_THREE])
    costs = np.concatenate([np.maximum.accumulate([0.0, *part]) for part in parts])
    one = np.kron(np.eye(len(parts)), np.ones(4))
    reached = np.kron(np.eye(len(parts)), points)
    total = [np.array(sizes) @ reached] if given is None else reached
    wanted = [share * sum(sizes)] if given is None else given
    solved = linprog(costs, A_eq=np.vstack([one, total]), b_eq=[*np.ones(len(parts)), *wanted], bounds=(0, None))
    assert solved.success
    return solved.fun


@settings(max_examples=30, deadline=None)
@given(HARMS, st.floats(0.01, 0.89), st.integers(0, 1000))
def test_shares_add_up_to_what_was_asked_and_no_others_cost_less(parts, share, seed):
    sizes = np.random.default_rng(seed).integers(1, 999, len(parts)).tolist()
    given = shares(found_with(parts), {str(number): size for number, size in enumerate(sizes)}, share)
    assert all(0 <= each <= 0.9 + 1e-12 for each in given.values())
    assert np.dot(list(given.values()), sizes) == pytest.approx(share * sum(sizes))
    optimum = least(parts, sizes, share)
    # The linear program is solved to 1e-7, and its shares are only as exact as ours.
    assert least(parts, sizes, given=np.clip(list(given.values()), 0, 0.9)) <= optimum + 1e-5 * (1 + optimum)


def test_what_costs_least_for_its_size_goes_first():
    # Per weight, up to the first ratio: 10 / 50 in the first part, 40 / 500 in the second, which therefore begins.
    found = found_with([(10, 40, 60), (40, 500, 600)])
    assert shares(found, {"0": 100, "1": 1000}, 0.4) == {"0": 0, "1": pytest.approx(0.44)}
    assert shares(found, {"0": 100, "1": 1000}, 0.48) == {"0": pytest.approx(0.28), "1": 0.5}
    # As distances they are squared: 100 / 50 against 1600 / 500.
    squared = found_with([(10, 40, 60), (40, 500, 600)], "distance")
    assert shares(squared, {"0": 100, "1": 1000}, 0.04) == {"0": pytest.approx(0.44), "1": 0}


def test_parts_that_lose_nothing_share_evenly_and_bounds_hold_where_too_much_is_asked():
    harmless, sizes = found_with([(0, 0, 0), (-1, 0, 0)]), {"0": 10, "1": 30}
    assert shares(harmless, sizes, 0.8) == {"0": pytest.approx(0.8), "1": pytest.approx(0.8)}
    assert shares(harmless, sizes, 0.99) == {"0": pytest.approx(0.9), "1": pytest.approx(0.9)}
    assert shares(harmless, sizes, 0.99, largest=0.7) == {"0": pytest.approx(0.7), "1": pytest.approx(0.7)}


def test_a_step_gives_each_layer_what_its_sensitivity_allows(tmp_path):
    base_file = tmp_path / "base.safetensors"
    given = dataclasses.replace(resources(), source=base_file)
    step = Sparsify(sparsity=0.6, allocation="sensitivity", recalibrate=False)
    made = step(seen(base()), given)
    path = beside(base_file, "weights")
    found = measured(
        seen(base()),
        ratios=(),
        path=path,
        given=dataclasses.replace(given, progress=lambda *news: pytest.fail("measured again")),
    )
    sizes = {part: base().weights[f"{part}.weight"].numel() for part in found.parts}
    wanted = shares(found, sizes, 0.6, 0.98)
    gone = {part: int((made.weights[f"{part}.weight"] == 0).sum()) for part in sizes}
    assert gone == {part: round(wanted[part] * size) for part, size in sizes.items()}
    assert len({round(share, 3) for share in wanted.values()}) > 2
    with pytest.raises(CompressError, match=r"0.97 was asked for, and 0.950 is the most .* 0.95, the highest ratio"):
        step.model_copy(update={"sparsity": 0.97})(seen(base()), given)


def test_the_plot_names_every_part_and_is_the_same_each_time():
    found = found_with([(1, 2, 3), (4, 5, 66.125)])
    named = dataclasses.replace(found, parts={"a<b>.conv": found.parts["0"], "linear": found.parts["1"]})
    drawn = plot(named)
    assert drawn == plot(named)
    assert "a&lt;b&gt;.conv" in drawn
    assert "linear" in drawn
    assert "66.12" in drawn
    assert plot(dataclasses.replace(named, parts={"linear": found.parts["1"]})) != drawn
