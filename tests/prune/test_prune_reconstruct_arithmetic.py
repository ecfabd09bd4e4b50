import pytest
import torch
from torch import nn

from compress.prune import least_squares
from compress.prune.least_squares import RIDGE, Moments, Reader, eliminate, fit, solve
from compress.prune.rows import assign, empty_moments, matrix, rows


def draw(blocks, count, inputs, outputs, seed=0):
    """Rows of correlated inputs with a one at the end, outputs that follow from them and noise, and their moments."""
    chance = torch.Generator().manual_seed(seed)
    mixing = torch.randn(blocks, inputs, inputs, generator=chance, dtype=torch.float64)
    x = torch.randn(blocks, count, inputs, generator=chance, dtype=torch.float64) @ mixing
    x = torch.cat([x, torch.ones(blocks, count, 1, dtype=torch.float64)], 2)
    y = x @ torch.randn(blocks, inputs + 1, outputs, generator=chance, dtype=torch.float64)
    y = y + torch.randn(y.shape, generator=chance, dtype=torch.float64)
    moments = Moments.empty(blocks, inputs + 1, outputs)
    for part in torch.arange(count).split(40):
        moments.add(x[:, part], y[:, part])
    return x, y, moments


def ridge_rows(x):
    """The ridge as rows of the problem: the square root of its pull at each weight, none at the bias."""
    pull = (RIDGE * x[:, :-1].square().sum(0).mean()).sqrt()
    rows = pull * torch.eye(x.shape[1], dtype=torch.float64)
    rows[-1, -1] = 0
    return rows


@pytest.mark.parametrize("bias", [True, False])
def test_solving_equals_least_squares_with_the_ridge_as_further_rows(bias):
    x, y, moments = draw(2, 200, 6, 3)
    start = torch.randn(2, 7, 3, dtype=torch.float64)
    start[:, -1] *= bias
    solved = solve(moments, start, bias=bias)
    for block in range(2):
        more = ridge_rows(x[block])
        used = slice(None) if bias else slice(-1)
        sides = torch.cat([x[block], more])[:, used], torch.cat([y[block], more @ start[block]])
        wanted = torch.linalg.lstsq(*sides).solution
        assert torch.allclose(solved[block, used], wanted, rtol=1e-6, atol=1e-6)  # 1e-9, which TINY adds, is below
        assert not torch.allclose(solved[block, used], wanted * 1.01, rtol=1e-6, atol=1e-6)
    assert bias or not solved[:, -1].any()


def test_the_ridge_is_the_one_that_serves_rows_not_seen():
    x, y, many = draw(1, 2000, 6, 3)
    few, rest = Moments.empty(1, 7, 3), Moments.empty(1, 7, 3)
    few.add(x[:, :5], y[:, :5])
    rest.add(x[:, 5:], y[:, 5:])
    true = solve(many, torch.zeros(1, 7, 3, dtype=torch.float64))
    assert many.error(true) == pytest.approx(float((x @ true - y).square().sum()), rel=1e-9)
    near = true + 0.01
    assert many.error(fit(few, rest, near)) < 1.01 * many.error(true) < many.error(solve(few, near))
    stays = [fit(few, Moments.empty(1, 7, 3), near), solve(few, near)]
    assert torch.allclose(*stays)


def by_brute_force(problems, pieces):
    """The order of elimination and the errors, each by solving again without every channel there is."""
    order, errors = [], []
    left = list(range(len(pieces[0])))

    def error(channels):
        total = 0.0
        for (x, y), piece in zip(problems, pieces, strict=True):
            kept = [*piece[channels].flatten().tolist(), x.shape[1] - 1]
            sides = torch.cat([x, ridge_rows(x)])[:, kept], torch.cat([y, torch.zeros(x.shape[1], y.shape[1])])
            rest = sides[0] @ torch.linalg.lstsq(*sides).solution - sides[1]
            total += (rest.square().sum(0) / (y - y.mean(0)).square().sum(0)).sum()
        return float(total)

    start = error(left)
    while len(left) > 1:
        found = {c: error([other for other in left if other != c]) for c in left}
        order.append(min(found, key=found.get))
        left.remove(order[-1])
        errors.append(found[order[-1]] - start)
    return tuple(order), errors


@pytest.mark.parametrize("candidates", [32, 3])
def test_elimination_equals_solving_again_without_every_channel(candidates, monkeypatch):
    monkeypatch.setattr(least_squares, "CANDIDATES", candidates)
    one, other = draw(1, 300, 14, 4, seed=1), draw(1, 200, 7, 2, seed=2)
    pieces = torch.arange(14).view(7, 2), torch.randperm(7, generator=torch.Generator().manual_seed(0)).view(7, 1)
    found = eliminate([Reader.of(one[2]), Reader.of(other[2])], pieces)
    order, errors = by_brute_force([(one[0][0], one[1][0]), (other[0][0], other[1][0])], pieces)
    assert found.order == order
    assert found.errors == pytest.approx(errors, rel=1e-5)


def test_halfway_the_readers_are_those_solved_without_what_went():
    x, y, moments = draw(1, 300, 8, 3)
    found = eliminate([Reader.of(moments)], [torch.arange(8).view(4, 2)])
    gone = [2 * channel + each for channel in found.order[:2] for each in (0, 1)]
    kept = [place for place in range(9) if place not in gone]
    more = ridge_rows(x[0])
    wanted = torch.linalg.lstsq(
        torch.cat([x[0], more])[:, kept], torch.cat([y[0], torch.zeros(9, 3, dtype=torch.float64)])
    ).solution
    assert torch.allclose(found.halfway[0][kept], wanted, rtol=1e-6, atol=1e-6)
    assert found.halfway[0][gone].abs().max() < 1e-9 * wanted.abs().max()


def test_of_two_that_are_the_same_one_goes_for_what_the_ridge_takes_and_the_other_does_not():
    x, y, _ = draw(1, 300, 6, 3)
    x[:, :, 4] = x[:, :, 1]
    moments = Moments.empty(1, 7, 3)
    moments.add(x, y)
    reader = Reader.of(moments)
    found = eliminate([reader], [torch.arange(6).view(6, 1)])
    # Two halves of a weight are half as dear to the ridge as the whole in one place.
    halves = moments.ridge()[0, 1] * reader.weights[[1, 4]].sum(0).square().sum() / 2
    assert found.order[0] in (1, 4)
    assert found.errors[0] == pytest.approx(float(halves), rel=0.01)
    assert found.errors[1] > 50 * found.errors[0]


KINDS = [
    nn.Conv2d(4, 6, 3, stride=2, padding=1),
    nn.Conv2d(4, 6, (3, 1), padding=(1, 0), bias=False),
    nn.Conv2d(4, 6, 3, padding="same", dilation=(1, 2)),
    nn.Conv2d(4, 6, 2, padding="same"),
    nn.Conv2d(4, 6, 3, padding="valid", groups=2),
    nn.Conv2d(4, 8, 3, padding=1, groups=4),
    nn.Linear(9, 5),
]


@pytest.mark.parametrize("layer", KINDS, ids=str)
def test_a_layer_is_its_matrix_on_its_rows(layer):
    x = torch.randn(3, 4, 9, 9, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        read, answered = rows(layer, x, layer(x), torch.Generator().manual_seed(1))
        assert torch.allclose(read @ matrix(layer).float(), answered, atol=1e-5)
        assert empty_moments(layer).products.shape == matrix(layer).shape
        weight = layer.weight.clone()
        bias = assign(layer, 2 * matrix(layer))
        assert torch.equal(layer.weight, 2 * weight)
        assert layer.bias is None or torch.equal(bias, 2 * layer.bias)


def test_rows_are_drawn_from_no_more_places_than_are_asked_for():
    x = torch.rand(2, 4, 16, 16)
    layer = nn.Conv2d(4, 6, 3, padding=1)
    read, answered = rows(layer, x, layer(x), torch.Generator().manual_seed(0))
    assert (read.shape, answered.shape) == ((1, 128, 37), (1, 128, 6))
    drawn = [rows(layer, x, layer(x), torch.Generator().manual_seed(seed))[0] for seed in (0, 1)]
    assert [torch.equal(read, each) for each in drawn] == [True, False]
