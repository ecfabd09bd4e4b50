"""From calibration values to scales: finite, positive, in fixed memory."""

import pytest
import torch
from quantizable import SHAPE, images
from torch import nn

from compress.errors import CompressError
from compress.quantize.bias import LARGEST
from compress.quantize.graph import insert
from compress.quantize.histogram import _divergence
from compress.quantize.observers import OBSERVERS, Settled, observer, specification
from compress.quantize.ptq import quantize
from compress.quantize.target import TARGETS, Integers, target

every = pytest.mark.parametrize("observer", OBSERVERS)
UNSIGNED, SIGNED = Integers("uint8", 0, 255, symmetric=False), Integers("int8", -127, 127, symmetric=True)


def scales(values, observer="min-max", integers=UNSIGNED):
    """The scale and zero point an observer settles on after some batches."""
    wanted = specification(integers, OBSERVERS[observer])
    watching = wanted.observer_or_fake_quant_ctr.with_args(
        dtype=wanted.dtype, qscheme=wanted.qscheme, quant_min=integers.low, quant_max=integers.high
    )()
    for batch in values:
        watching(batch)
    scale, zero_point = Settled(watching).calculate_qparams()
    return scale.item(), int(zero_point)


@every
@pytest.mark.parametrize("integers", [UNSIGNED, SIGNED])
def test_zero_is_an_integer_of_every_scale(observer, integers):
    for values in (torch.linspace(1, 2, 64), torch.linspace(-3, -1, 64), torch.linspace(-1, 5, 64)):
        scale, zero_point = scales([values], observer, integers)
        assert scale > 0
        assert integers.low <= zero_point <= integers.high
        assert not integers.symmetric or zero_point == 0


def test_min_max_is_the_same_whatever_the_batch_size():
    values = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    assert scales(values.split(1)) == scales(values.split(64))
    scale, zero_point = scales([values])
    assert scale == pytest.approx((values.max() - values.min()).item() / 255, rel=1e-6)
    assert zero_point == round(-values.min().item() / scale)


def test_least_squares_cuts_an_outlier_off_that_min_max_keeps():
    values = torch.randn(2**20, generator=torch.Generator().manual_seed(0))
    values[0] = 12.0
    assert scales([values], "mse")[0] < 0.8 * scales([values])[0]


def test_a_moving_average_forgets_one_odd_batch():
    usual, odd = torch.linspace(0, 1, 64), torch.linspace(0, 100, 64)
    assert scales([usual, odd, *[usual] * 30], "moving-average")[0] < scales([usual, odd, *[usual] * 30])[0] / 10


@every
def test_an_observer_keeps_as_much_for_a_hundred_batches_as_for_one(observer):
    def kept(batches):
        watching = OBSERVERS[observer].with_args(dtype=torch.uint8, quant_min=0, quant_max=255)()
        for batch in range(batches):
            watching(torch.randn(8, generator=torch.Generator().manual_seed(batch)))
        return sum(tensor.numel() for tensor in watching.buffers())

    assert kept(1) == kept(100)


@every
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_no_integer_stands_for_are_refused(observer, value):
    broken = images()
    broken[3, 0, 0, 0] = value
    with pytest.raises(CompressError, match="NaN or infinity inside the network"):
        quantize(
            nn.Sequential(nn.Flatten(), nn.Linear(768, 5)).eval(),
            SHAPE,
            target("onnxruntime-cpu"),
            observer,
            broken.split(8),
        )


def nearly_dead():
    """A network whose second channel has hardly any weight and a large bias, as pruning leaves them."""
    made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 5)).eval()
    with torch.no_grad():
        made[0].weight[1] *= 1e-12
        made[0].weight[2] = 0
        made[0].bias[1:3] = torch.tensor([5.0, -7.0])
    return made


def test_near_dead_channels_have_biases_inside_int32():
    made = nearly_dead()
    result = quantize(made, SHAPE, target("onnxruntime-cpu"), "min-max", images().split(8))
    rebuilt = insert(made, result.quantization, result.tensors, SHAPE)
    held = rebuilt.state_dict()
    assert held["0.bias.integer"].long().abs().max() <= LARGEST * (1 + 1e-6)
    values, exact = held["0.bias.integer"].double() * held["0.bias.scale"].double(), made[0].bias.detach().double()
    tolerance = held["0.bias.scale"].double() / 2 + 2.0**-22 * exact.abs()
    assert ((values - exact).abs() <= tolerance).all()
    assert ((1.01 * values - exact).abs() > tolerance)[1:3].all()


def test_scales_of_healthy_channels_are_not_lifted():
    made = nearly_dead()
    with_bias = quantize(made, SHAPE, target("onnxruntime-cpu"), "min-max", images().split(8)).tensors["0.weight.scale"]
    without = quantize(made, SHAPE, target("openvino"), "min-max", images().split(8)).tensors["0.weight.scale"]
    assert torch.equal(with_bias[[0, 3]], without[[0, 3]])
    assert (with_bias[[1, 2]] > without[[1, 2]]).all()


@pytest.mark.parametrize("name", TARGETS)
def test_activations_that_are_always_zero_are_counted(name):
    made = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 5)
    ).eval()
    with torch.no_grad():
        made[0].bias.fill_(-1e6)
        made[2].bias.fill_(1.0)
    assert quantize(made, SHAPE, target(name), "min-max", images().split(8)).silent == 1


counting = pytest.mark.parametrize("observer", ["percentile", "mse", "entropy"])


@counting
@pytest.mark.parametrize("integers", [UNSIGNED, SIGNED])
def test_counts_are_the_same_whatever_the_batch_size_and_the_order(observer, integers):
    values = torch.randn(600, generator=torch.Generator().manual_seed(0)) ** 3
    together = scales([values], observer, integers)
    assert scales(values.split(1), observer, integers) == together
    assert scales(values.sort().values.split(7), observer, integers) == together
    assert scales(values.sort(descending=True).values.split(50), observer, integers) == together
    assert scales([1.01 * values], observer, integers) != together


@counting
def test_zeros_seen_first_cost_no_resolution(observer):
    values = torch.rand(512, generator=torch.Generator().manual_seed(0)) * 1e-6
    assert scales([torch.zeros(8), values], observer) == scales([values, torch.zeros(8)], observer)
    assert scales([torch.zeros(8), values], observer)[0] < 1e-6


def test_percentile_cuts_off_the_share_it_is_told_to():
    """Of 100,000 even values from 0 to 1, a share of 99 leaves half a per cent above the range; a bin is at most 1/4096 wide."""
    values = torch.linspace(0, 1, 100_000)
    watching = observer("percentile", 99.0)(
        dtype=torch.uint8, qscheme=torch.per_tensor_affine, quant_min=0, quant_max=255
    )
    watching(values)
    end = 255 * Settled(watching).calculate_qparams()[0].item()
    assert abs(end - 0.995) <= 2 / 4096
    assert abs(end * 1.01 - 0.995) > 2 / 4096


@pytest.mark.parametrize("observer", ["percentile", "entropy"])
def test_an_outlier_is_cut_off(observer):
    values = torch.randn(2**18, generator=torch.Generator().manual_seed(0))
    values[0] = 40.0
    assert scales([values], observer)[0] < 0.5 * scales([values])[0]


def test_least_squares_finds_a_smaller_error_than_min_max():
    values = torch.randn(2**18, generator=torch.Generator().manual_seed(0)) ** 3

    def error(name):
        scale, zero = scales([values], name)
        return (((values / scale).round().add(zero).clamp(0, 255) - zero) * scale - values).square().mean()

    assert error("mse") < 0.9 * error("min-max")


def test_entropy_keeps_a_range_that_is_used_evenly():
    """Every threshold below the end loses information where all values are as likely."""
    values = torch.linspace(0, 1, 2**16)
    assert scales([values], "entropy")[0] == pytest.approx(1 / 255, rel=0.01)


def test_the_divergence_is_that_of_the_definition():
    """Eight counts cut off at six and held in three levels, worked out by hand with scipy's relative entropy."""
    from scipy.stats import entropy as relative

    counts = torch.tensor([8.0, 4.0, 0.0, 2.0, 2.0, 1.0, 1.0, 2.0], dtype=torch.float64)
    reference, candidate = [8, 4, 0, 2, 2, 4], [6, 6, 0, 2, 1.5, 1.5]
    assert _divergence(counts, 6, 3) == pytest.approx(relative(reference, candidate))
