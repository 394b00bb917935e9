"""LARS against a step by hand."""

import pytest
import torch
from torch import nn

from windeye.train import LARS, Cosine, fit


def two_weights():
    module = nn.Module()
    module.matrix = nn.Parameter(torch.tensor([[3.0, 0.0], [0.0, 4.0]], dtype=torch.float64))
    module.vector = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    return module


def test_two_steps_are_those_of_a_calculation_by_hand():
    module = two_weights()
    optimiser = LARS(rate=2.0, momentum=0.5, trust=0.1, weight_decay=0.5).of(module)
    gradient = torch.tensor([[-1.5, 3.0], [4.0, -2.0]], dtype=torch.float64)
    module.matrix.grad, module.vector.grad = gradient.clone(), torch.tensor([1.0, 1.0], dtype=torch.float64)
    optimiser.step()
    # |w| = 5; u = g + w / 2 = [[0, 3], [4, 0]], |u| = 5; m = 0.1 u; w - 2 m.
    expected = torch.tensor([[3.0, -0.6], [-0.8, 4.0]], dtype=torch.float64)
    torch.testing.assert_close(module.matrix.data, expected)
    torch.testing.assert_close(module.vector.data, torch.tensor([-1.0, -4.0], dtype=torch.float64))  # w - 2 g
    module.matrix.grad, module.vector.grad = torch.zeros(2, 2).double(), torch.zeros(2).double()
    optimiser.step()
    # u = w / 2, so trust |w| / |u| = 0.2 and u' = 0.1 w; m = 0.05 [[0, 3], [4, 0]] + 0.1 w.
    momentum = 0.05 * torch.tensor([[0.0, 3.0], [4.0, 0.0]], dtype=torch.float64) + 0.1 * expected
    torch.testing.assert_close(module.matrix.data, expected - 2 * momentum)
    torch.testing.assert_close(module.vector.data, torch.tensor([-2.0, -5.0], dtype=torch.float64))  # m = 0.5 g


def test_a_matrix_of_zeros_moves_by_its_gradient():
    module = two_weights()
    nn.init.zeros_(module.matrix)
    module.matrix.grad = torch.ones(2, 2).double()
    LARS(rate=0.5, trust=0.1).of(module).step()
    torch.testing.assert_close(module.matrix.data, torch.full((2, 2), -0.5).double())


def test_without_a_gradient_and_with_one_of_zeros_nothing_moves():
    module = two_weights()
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    module.matrix.grad = torch.zeros(2, 2).double()
    LARS(rate=0.5).of(module).step()
    assert all(torch.equal(p, before[name]) for name, p in module.named_parameters())


def test_the_loop_trains_with_it_and_resumes_bit_by_bit(tmp_path):
    x, y = torch.randn(64, 6), torch.randint(3, (64,))

    def batches(step):
        rows = torch.arange(16) + 16 * (step % 4)
        return x[rows], y[rows]

    def run(steps, folder=None, until=None):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
        rows = fit(
            model, batches, steps=steps, optimiser=LARS(rate=0.5, trust=0.1), schedule=Cosine(warm_up=2, final=0.0),
            folder=folder, every=3, evaluate=lambda _: {"seen": 1.0}, until=until, progress=False,
        )  # fmt: skip
        return [row["loss"] for row in rows]

    whole = run(9)
    assert whole[-1] < whole[0]
    stopped = run(9, tmp_path, until=lambda row: row["step"] == 3)
    assert len(stopped) == 3
    assert run(9, tmp_path) == whole


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"rate": 0.0}, "rate must be positive"),
        ({"trust": -1.0}, "trust must be positive"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\)"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0"),
    ],
)
def test_settings_without_sense_are_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        LARS(**settings)


def test_a_model_without_anything_to_train_is_refused():
    with pytest.raises(ValueError, match="no parameter"):
        LARS().of(nn.Linear(2, 2).requires_grad_(False))
