"""Templates, filter loss, masks and training: literal formulas, finite differences, identities, exact resume."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from microtome.disentangle.filter_loss import (
    FilterLoss,
    Partition,
    filter_gradient,
    filter_loss,
    fitted_templates,
    log_partition,
    scores,
)
from microtome.disentangle.interpretable import backbone_features, frozen_below, interpretable_cnn
from microtome.disentangle.pressure import FilterPressure
from microtome.disentangle.probe import fit_probe
from microtome.disentangle.rate import ended, found_rate
from microtome.disentangle.templates import FilterMask, log_priors, shapes, tau, templates
from microtome.disentangle.training import Membership, Result, Trainer, TrainingRecipe, together
from microtome.errors import InputError
from microtome.networks import Capture, walk
from tests import literal
from tests.conftest import soak

N = 5


def maps(images: int = 6, filters: int = 3, seed: int = 0) -> torch.Tensor:
    drawn = torch.randn(images, filters, N, N, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return 40 * drawn.relu()


def test_templates_and_priors_are_exact() -> None:
    np.testing.assert_array_equal(templates(N).numpy(), literal.templates(N))
    assert log_priors(N).exp().sum() == pytest.approx(1, abs=1e-14)
    assert templates(N)[7, 1, 2] == tau(N)
    assert (templates(N)[-1] == -tau(N)).all()
    assert shapes(N).min() == -1


def test_loss_and_gradient_equal_the_literal_formula() -> None:
    x = maps()
    got, slope = filter_loss(x), filter_gradient(x)
    for number in range(x.shape[1]):
        wanted, gradient = literal.filter_loss(x[:, number].numpy())
        assert float(got[number]) == pytest.approx(wanted, rel=1e-10)
        np.testing.assert_allclose(slope[:, number].numpy(), gradient, rtol=1e-8, atol=1e-14)


def test_gradient_agrees_with_finite_differences_sign_included() -> None:
    x = maps(4, 1, seed=1)
    log_z = log_partition(scores(x))
    slope = filter_gradient(x, log_z)
    rng = np.random.default_rng(0)
    assert slope.abs().max() > 1e-7
    for _ in range(25):
        at = (int(rng.integers(4)), 0, int(rng.integers(N)), int(rng.integers(N)))
        step = torch.zeros_like(x)
        step[at] = 1e-3
        numeric = float((filter_loss(x + step, log_z) - filter_loss(x - step, log_z)) / 2e-3)
        assert float(slope[at]) == pytest.approx(numeric, abs=1e-8 * max(1.0, abs(numeric) / 1e-3), rel=1e-6)


def test_mutual_information_identity() -> None:
    """Loss_f = -H(T) + H({T_minus, T_plus} | X) + sum_x p(T_plus, x) H(T_plus | x)."""
    x = maps(7, 2, seed=2)
    score = scores(x)
    given = (score - log_partition(score)).exp()
    prior = log_priors(N).exp()
    joint = given * prior  # (images, filters, T): p(T) p(x|T)
    marginal = joint.sum(2)
    posterior = joint / marginal[..., None]
    plus = posterior[..., :-1].sum(2)
    entropy = -(prior * prior.log()).sum()
    split = -(marginal * (plus * plus.log() + (1 - plus) * (1 - plus).log())).sum(0)
    inside = posterior[..., :-1] / plus[..., None]
    within = (marginal * plus * -(inside * inside.log()).sum(2)).sum(0)
    np.testing.assert_allclose(filter_loss(x), -entropy + split + within, atol=1e-10, rtol=0)


def test_training_gradient_keeps_one_template_per_map() -> None:
    x = maps(5, 2, seed=3).requires_grad_()
    wanted = torch.tensor([[True, False]] * 3 + [[False, True]] * 2)
    fitted = fitted_templates(x.detach(), wanted)
    assert fitted[0, 1] == N * N
    assert fitted[0, 0] == x[0, 0].flatten().argmax()
    log_z, by = log_partition(scores(x.detach())), torch.tensor([2.0, 0.5], dtype=torch.float64)
    FilterLoss.apply(x, fitted, log_z, by).backward()
    score = scores(x.detach())
    given = score - log_z
    log_p = (given + log_priors(N)).logsumexp(2)
    for image in range(5):
        for number in range(2):
            t = int(fitted[image, number])
            brace = float(score[image, number, t] - log_z[number, t] - log_p[image, number])
            factor = -float(log_priors(N)[t].exp() * given[image, number, t].exp()) * brace * float(by[number])
            np.testing.assert_allclose(x.grad[image, number], factor * literal.templates(N)[t], rtol=1e-9, atol=1e-16)


def test_huge_maps_do_not_overflow() -> None:
    x = 1e6 * maps()
    assert torch.isfinite(filter_loss(x)).all()
    assert torch.isfinite(filter_gradient(x)).all()
    assert torch.isfinite(filter_loss(torch.zeros_like(x))).all()


def test_running_partition_of_equal_batches_is_the_batch_own() -> None:
    x, state = maps(), Partition(3, N).double()
    for _ in range(4):
        got = state.update(x)
    np.testing.assert_allclose(got, log_partition(scores(x)), rtol=1e-12)


def test_mask_keeps_the_peak_and_nothing_far_from_it() -> None:
    x = maps(4, 3, seed=4)
    masked = FilterMask(3, N).double()(x)
    assert torch.equal(masked.flatten(2).argmax(2), x.flatten(2).argmax(2))
    assert torch.equal(masked.amax((2, 3)), x.amax((2, 3)))
    one = torch.zeros(1, 1, N, N, dtype=torch.float64)
    one[0, 0, 1, 1], one[0, 0, 1, 2], one[0, 0, 3, 3] = 5.0, 4.0, 4.0
    wanted = torch.zeros(N, N, dtype=torch.float64)
    wanted[1, 1], wanted[1, 2] = 5.0, 4.0 * (1 - 4 / N)
    np.testing.assert_allclose(FilterMask(1, N).double()(one)[0, 0], wanted, rtol=1e-6)
    centred = FilterMask(1, N, centre="centroid").double()(one)[0, 0]
    assert centred.flatten().argmax() == 1 * N + 2  # the mean place is (1.6, 1.9), rounded (2, 2)


def test_mask_is_a_constant_in_the_backward_pass() -> None:
    x = maps(2, 2, seed=5).requires_grad_()
    mask = FilterMask(2, N).double()
    out = mask(x)
    out.sum().backward()
    ratio = torch.where(x > 0, out / x.clamp(min=1e-12), torch.zeros(()))
    np.testing.assert_allclose(x.grad[x.detach() > 0], ratio[x.detach() > 0].detach(), rtol=1e-12)


def test_learned_slopes_narrow_where_filters_fire_narrowly() -> None:
    mask = FilterMask(2, N, learned=True)
    x = torch.zeros(3, 2, N, N)
    x[:, 0, 2, 2] = 1.0
    x[:, 1] = 1.0
    for _ in range(200):
        mask(x)
    assert mask.slope[0] == pytest.approx(6.0, abs=1e-3)
    assert mask.slope[1] < mask.slope[0]
    mask.eval()
    before = mask.slope.clone()
    mask(x)
    assert torch.equal(mask.slope, before)


def test_category_of_a_filter_is_where_it_fires_most() -> None:
    membership = Membership(2, 3, background=2)
    x = torch.zeros(3, 2, N, N)
    x[0, 0], x[1, 1], x[2, 1] = 1.0, 1.0, 9.0
    wanted = membership.update(x, torch.tensor([0, 1, 2]))
    assert membership.categories().tolist() == [0, 1]  # the background is no category
    assert wanted.tolist() == [[True, False], [False, True], [False, False]]
    assert Membership(2, 1, None).categories().tolist() == [1, 1]
    absent = Membership(1, 3, None)
    absent.update(x[:1, :1], torch.tensor([1]))
    assert absent.categories().tolist() == [1]


@pytest.mark.parametrize(
    ("backbone", "size", "top", "n"),
    [
        ("torchvision.models:vgg11", 64, "18", 4),
        ("torchvision.models:alexnet", 96, "10", 5),
        ("torchvision.models:squeezenet1_0", 96, "12", 5),
        ("torchvision.models:resnet18", 96, "layer4", 3),
        ("microtome.networks.small:creature_net", 96, "11", 12),
    ],
)
def test_backbones(backbone: str, size: int, top: str, n: int) -> None:
    network = interpretable_cnn(backbone, size=(size, size), mask={}).eval()
    names = [name for name, _ in network.features.named_children()]
    assert names[frozen_below(network.features, None)] == top
    layers = walk(network.requires_grad_(False), (size, size), ["top_map", "extra_map"])
    assert layers[0].grid == (n, n) == (network.n, network.n)
    assert layers[1].start == layers[0].start
    assert layers[1].jump == layers[0].jump
    assert layers[1].field[0] == layers[0].field[0] + 2 * layers[0].jump[0]
    with Capture(network, layers) as capture:
        found = capture(torch.rand(2, 3, size, size))
    assert found["extra_map"].shape == (2, network.filters, n, n)
    assert network(torch.rand(2, 3, size, size)).shape == (2, 1)


BACKBONES = ("resnet18", "alexnet", "vgg16", "mobilenet_v2")


@pytest.mark.soak
@pytest.mark.parametrize("name", BACKBONES[: soak(1, 4)])
def test_one_strength_trains_any_backbone(name: str) -> None:
    """With random weights, at the rate that is found: the loss stays finite, no step back, and filters are pressed."""
    torch.manual_seed(0)
    network = interpretable_cnn(f"torchvision.models:{name}", size=(96, 96), mask={}, head="linear")
    source = Toy()
    frozen = frozen_below(network.features, None)
    with torch.no_grad():
        grown = torch.nn.functional.interpolate(source.pictures, (96, 96))
        for module in network.features.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0  # by the pictures: what batch norm begins with lets random features die away
        network.features.train()(grown)
        source.pictures = network.features[:frozen].eval()(grown)
    one = Trainer(network, frozen, TrainingRecipe(1, 8, (0.01, 0.001), 1.0))
    one.start(source, range(20))
    one.train_at(found_rate(one, source, range(20)))
    steps = one.epoch(0, source, range(20))
    assert np.isfinite([result.task_loss for _, result in steps]).all()
    assert one.halvings == 0
    assert all(float(pressure.size) > 0 for pressure in one.pressure)
    assert one.evaluate(source, range(20))[0].accuracy == 1.0


def test_other_backbones_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="got Linear"):
        backbone_features(torch.nn.Linear(3, 3))
    flat = torch.nn.Sequential()
    flat.add_module("features", torch.nn.Sequential(torch.nn.ReLU()))
    with pytest.raises(InputError, match="must hold a convolution"):
        backbone_features(flat)
    network = interpretable_cnn("microtome.networks.small:creature_net", size=(64, 64))
    with pytest.raises(InputError, match="freeze_below"):
        frozen_below(network.features, "features.99")


class Toy:
    """Bright squares left or right, as maps."""

    def __init__(self, images: int = 24) -> None:
        draw = torch.Generator().manual_seed(0)
        self.labels = torch.arange(images) % 2
        self.pictures = torch.rand(images, 3, 32, 32, generator=draw)
        self.pictures[self.labels == 1, :, 4:14, 4:14] += 2.0

    def features(self, images, mirrored):
        flipped = torch.tensor(mirrored)[:, None, None, None]
        return torch.where(flipped, self.pictures[images].flip(3), self.pictures[images])


def trainer(strength: float = 0.5, classes: int = 1) -> Trainer:
    network = interpretable_cnn(
        "microtome.networks.small:creature_net", size=(32, 32), arguments={"width": 16}, mask={}, classes=classes
    )
    return Trainer(network, 0, TrainingRecipe(3, 8, (0.003, 0.001), strength, 1))


def trained(epochs: range, strength: float = 0.5, state=None) -> Trainer:
    one, source = trainer(strength), Toy()
    if state is not None:
        one.restore(state)
    for epoch in epochs:
        list(one.epoch(epoch, source, range(20)))
    return one


def same(one: dict, other: dict) -> bool:
    return set(one) == set(other) and all(one[name].numpy().tobytes() == other[name].numpy().tobytes() for name in one)


def test_a_stopped_training_goes_on_to_the_same_bits() -> None:
    whole = trained(range(3)).state()
    for stop in (1, 2):
        half = trained(range(stop))
        assert same(trained(range(stop, 3), state=half.state()).state(), whole)
    assert not same(trained(range(3), strength=0.0).state(), whole)


def test_training_lowers_the_task_loss_and_guards_the_odd_cases() -> None:
    one, source = trainer(), Toy()
    before, logits = one.evaluate(source, range(24))
    assert logits.shape == (24, 1)
    for epoch in range(3):
        counts = [count for count, _ in one.epoch(epoch, source, range(20))]
        assert counts == [8, 8, 4]  # the last partial batch counts
    after, _ = one.evaluate(source, range(24))
    assert after.task_loss < before.task_loss
    lonely = [place for place in range(20) if source.labels[place] == 1]
    list(one.epoch(3, source, lonely))  # a class that is absent from every batch
    assert all(torch.isfinite(value).all() for value in one.state().values())


def test_steps_together_are_means_over_their_images() -> None:
    got = together([(3, Result(1.0, -2.0, 1.0)), (1, Result(5.0, -6.0, 0.0))])
    assert got == Result(2.0, -3.0, 0.75)


def test_frozen_layers_do_not_move() -> None:
    network = interpretable_cnn(
        "microtome.networks.small:creature_net", size=(32, 32), arguments={"width": 16}, mask={}
    )
    frozen = frozen_below(network.features, None)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    one, source = Trainer(network, frozen, TrainingRecipe(1, 8, (0.01, 0.01), 0.01)), Toy()
    with torch.no_grad():
        source.pictures = one.base(source.pictures)
    list(one.epoch(0, source, range(20)))
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert not any(name.startswith(f"features.{number}.") for name in moved for number in range(frozen))


def test_a_training_that_diverges_steps_back_at_half_the_rate() -> None:
    one, source = started(TrainingRecipe(2, 8, (1e3, 1e3), 0.5)), Toy()
    before = one.state()
    first = one.epoch(0, source, range(20))
    assert one.halvings > 0
    assert one.rate_at(0) == 1e3 * 0.5**one.halvings
    assert together(first).task_loss < 10 * np.log(2)
    again = started(TrainingRecipe(2, 8, (one.rate_at(0),) * 2, 0.5))  # as if it had begun at that rate
    again.restore({**before, "halvings": torch.tensor(0)})
    assert again.epoch(0, source, range(20)) == first
    halvings = one.halvings
    one.restore(one.state())
    assert one.halvings == halvings


def test_a_training_that_diverges_at_any_rate_stops_with_advice() -> None:
    with pytest.raises(InputError, match=r"finetuning\.rate"):
        started(TrainingRecipe(6, 8, (1e12, 1e12), 0.0)).epoch(0, Toy(), range(20))


def test_the_filter_gradient_is_a_share_of_the_tasks_pull_whatever_the_maps_units_are() -> None:
    """Literally: units, template gradients, nothing along the maps, the norm; and the same at a thousandfold scale."""
    x, slope = maps(6, 3, seed=7), torch.randn(6, 3, N, N, dtype=torch.float64)
    wanted = torch.tensor([[True, True, False]] * 3 + [[False, True, False]] * 3)
    pressed, pull = [], torch.tensor([1.0, 0.5, 0.1, 2.0, 1e-3, 1.0])
    for scale in (1.0, 1000.0):
        pressure = FilterPressure(3, N).double()
        leaf = (scale * x).requires_grad_()
        pressure.press(leaf, wanted, 0.5, pull)
        (leaf * slope).sum().backward()
        pressed.append(leaf.grad - slope)
    np.testing.assert_allclose(pressed[1], pressed[0], rtol=1e-6)
    size = math.sqrt(sum((float(one.norm()) / float(beside)) ** 2 for one, beside in zip(slope, pull, strict=True)))
    assert float(pressed[0].norm()) == pytest.approx(0.5 * size)
    unit = x.amax((2, 3)).mean(0)
    expected = torch.stack([literal_slope(x[:, f], float(unit[f]), wanted[:, f]) for f in range(3)], 1)
    np.testing.assert_allclose(pressed[0] / pressed[0].norm(), expected / expected.norm(), rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose((pressed[0] * x).sum((0, 2, 3)), 0, atol=1e-10)


def literal_slope(x: torch.Tensor, unit: float, wanted: torch.Tensor) -> torch.Tensor:
    """v' of one filter: (images, N, N)."""
    u = x * N**2 / unit
    score = scores(u[:, None])[:, 0]
    log_z = score.logsumexp(0)
    out = torch.zeros_like(x)
    for image in range(len(x)):
        t = int(x[image].flatten().argmax()) if wanted[image] else N * N
        given = score[image] - log_z
        log_p = (given + log_priors(N)).logsumexp(0)
        factor = -float(log_priors(N)[t].exp() * given[t].exp() * (given[t] - log_p))
        out[image] = factor * torch.from_numpy(literal.templates(N)[t]) * unit
    return out - x * (out * x).sum() / (x * x).sum()


def test_a_share_is_of_the_mean_norm_so_far_and_not_of_what_was_added_above() -> None:
    above = FilterPressure(3, N).double()
    below = FilterPressure(3, N, above).double()
    wanted = torch.ones(6, 3, dtype=torch.bool)
    for number, size in enumerate((2.0, 4.0)):
        low = maps(6, 3, seed=number).requires_grad_()
        high = 3 * low
        below.press(low, wanted, 1.0, torch.ones(6))
        above.press(high, wanted, 2.0, torch.ones(6))
        slope = torch.randn(6, 3, N, N, dtype=torch.float64)
        (high * slope * size / slope.norm()).sum().backward()
        assert float(above.size) == pytest.approx((2.0, 3.0)[number])
        assert float(below.size) == pytest.approx(3 * float(above.size), rel=1e-6)  # the chain rule's 3


@pytest.mark.parametrize("classes", [1, 3])
def test_a_pictures_pull_is_measured_beside_one_that_is_right_with_nine_in_ten(classes: int) -> None:
    one = trainer(classes=classes)
    labels = torch.tensor([0, 1])
    sure = torch.full((2, max(classes, 2)), 0.1 / max(1, classes - 1)).scatter(1, labels[:, None], 0.9).log()
    logits = sure[:, 1:] - sure[:, :1] if classes == 1 else sure
    torch.testing.assert_close(one._pull(logits, labels), torch.ones(2))
    guessed = one._pull(torch.zeros_like(logits), labels)
    off = 0.5 if classes == 1 else math.sqrt(6) / 3  # of a picture on the border: (2/3, 1/3, 1/3)
    torch.testing.assert_close(guessed, torch.full((2,), off / (0.1 if classes == 1 else 0.1 * math.sqrt(1.5))))


def test_pressure_does_not_fade_where_the_task_is_solved() -> None:
    """The maps of a network that is sure are pressed as those of one that is not."""
    sizes = []
    for sure in (1.0, 1e-3):
        pressure = FilterPressure(3, N).double()
        leaf = maps(6, 3, seed=7).requires_grad_()
        pressure.press(leaf, torch.ones(6, 3, dtype=torch.bool), 1.0, torch.full((6,), sure))
        torch.manual_seed(0)
        (leaf * sure * torch.randn(6, 3, N, N, dtype=torch.float64)).sum().backward()
        sizes.append(float(pressure.size))
    assert sizes[1] == pytest.approx(sizes[0])


def test_a_linear_head_begins_as_its_probe() -> None:
    one, source = started(TrainingRecipe(1, 8, (0.01, 0.001), 0.5)), Toy()
    result, logits = one.evaluate(source, range(20))
    assert result.accuracy == 1.0
    with torch.no_grad():
        read = [one.network.read(one.tail(source.features(range(20), [side] * 20))).double() for side in (False, True)]
    probe = fit_probe(torch.cat(read).numpy(), np.tile(source.labels[:20].numpy(), 2))
    np.testing.assert_allclose(logits.numpy(), probe.logits(read[0].numpy()), rtol=1e-3, atol=1e-4)
    assert float(read[0].square().sum(1).mean()) == pytest.approx(1, rel=0.3)


def started(recipe: TrainingRecipe) -> Trainer:
    network = interpretable_cnn(
        "microtome.networks.small:creature_net", size=(32, 32), arguments={"width": 16}, mask={}, head="linear"
    )
    one = Trainer(network, 0, recipe)
    one.start(Toy(), range(20))
    return one


@pytest.mark.parametrize("head", ["small", "linear"])
def test_a_head_is_fitted_at_the_end(head: str) -> None:
    one, source = started(TrainingRecipe(1, 8, (0.01, 0.001), 0.5)) if head == "linear" else trainer(), Toy()
    with torch.no_grad():
        one.network.last.weight.normal_()  # as if filters had moved away from what it was trained on
    before = one.evaluate(source, range(20))[0]
    one.finish(source, range(20))
    assert one.evaluate(source, range(20))[0].task_loss < before.task_loss / 2


def test_a_probe_is_the_ridge_logistic_regression_of_standardised_features() -> None:
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(40, 3)) * [1, 50, 0] + [5, -3, 2], np.arange(40) % 2  # the third never varies
    x[:, 0] += labels
    probe = fit_probe(x, labels, penalty=0.1)
    standard = (x[:, :2] - x[:, :2].mean(0)) / x[:, :2].std(0)

    def loss(w: np.ndarray) -> float:
        z = standard @ w[:2] + w[2]
        return float(np.logaddexp(0, -z * (2 * labels - 1)).mean() + 0.05 * (w[:2] ** 2).sum())

    best = minimize(loss, np.zeros(3), tol=1e-12).x
    np.testing.assert_allclose(probe.logits(x)[:, 0], standard @ best[:2] + best[2], atol=1e-3)
    assert probe.weight[0, 2] == 0
    three = fit_probe(x, np.arange(40) % 3)
    assert three.logits(x).shape == (40, 3)
    with pytest.raises(ValueError, match="every class"):
        fit_probe(x, np.full(40, 2))


def test_a_rate_is_found_where_training_breaks() -> None:
    one, source = started(TrainingRecipe(1, 8, (0.01, 0.001), 0.5)), Toy()
    before = one.state()
    rate = found_rate(one, source, range(20))
    assert same(one.state(), before)
    assert found_rate(one, source, range(20)) == rate
    assert 1e-5 < rate <= 1.0
    assert not ended([0.1] * 6 + [0.69], 1)
    assert ended([0.1] * 6 + [0.7], 1)
    assert ended([0.1] * 6 + [float("nan")], 1)
    assert ended([0.1] * 6 + [0.009], 1)
    assert not ended([5.0, 0.1], 1)  # the first losses are ordinary
