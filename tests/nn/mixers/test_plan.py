"""Plans: groups and patterns tell the same relation, for any device; costs are counts of pairs."""

import pytest
import torch

from windeye import Blocks, Full, attend
from windeye.nn.mixers import Groups, Plan, WindowMixer
from windeye.nn.mixers.groups import blocks_as_groups
from windeye.nn.mixers.plan import attended, dense, multiply_adds, pairs, positions, row

EXACT = {"rtol": 1e-10, "atol": 1e-11}
GRID = (7, 9)


def tensors(*grid, heads=3, width=4):
    return torch.randn(3, 2, *grid, heads, width, dtype=torch.float64).unbind(0)


@pytest.mark.parametrize("shift", [(0, 0), (2, 1)])
@pytest.mark.parametrize("biased", [False, True])
def test_blocks_and_their_windows_cut_out_are_the_same(shift, biased):
    query, key, value = tensors(*GRID)
    bias = torch.randn(3, 5, 7, dtype=torch.float64) if biased else None
    blocks = Blocks((3, 4), shift)
    plan = Plan(query, key, value, blocks, 0.4, bias)
    groups = Plan(query, key, value, blocks_as_groups(blocks, GRID, query.device), 0.4, bias)
    torch.testing.assert_close(attended(groups), attended(plan), **EXACT)
    torch.testing.assert_close(dense(groups), dense(plan), **EXACT)
    torch.testing.assert_close(row(groups, 6, 2), row(plan, 6, 2), **EXACT)


def test_positions_that_stand_for_cells_spread_their_weight_evenly():
    query, _, _ = tensors(4, 6)
    _, key, value = tensors(2, 2)
    plan = Plan(query, key, value, Full(), 0.5, cell=(2, 3))
    whole, small = dense(plan), dense(Plan(query, key, value, Full(), 0.5))
    for y in range(4):
        for x in range(6):
            torch.testing.assert_close(whole[..., y * 6 + x], small[..., y // 2 * 2 + x // 3] / 6, **EXACT)
    out = torch.einsum("bhqp,bphd->bqhd", whole, positions(plan))
    torch.testing.assert_close(out, attended(plan).flatten(1, 2), **EXACT)
    torch.testing.assert_close(row(plan, 1, 2).flatten(2), whole[:, :, 8], **EXACT)


def test_cells_at_the_rim_stand_for_fewer_tokens():
    query, _, _ = tensors(3, 4)
    _, key, value = tensors(2, 2)
    ragged, small = (
        Plan(query, key, value, Full(), 0.5, cell=(2, 3), tokens=(3, 4)),
        Plan(query, key, value, Full(), 0.5),
    )
    weights = dense(ragged).unflatten(-1, (3, 4))
    expected = dense(small).unflatten(-1, (2, 2)) / torch.tensor([[6, 2], [3, 1]])
    for y in range(3):
        for x in range(4):
            torch.testing.assert_close(weights[..., y, x], expected[..., y // 2, x // 3], **EXACT)
    out = torch.einsum("bhqp,bphd->bqhd", dense(ragged), positions(ragged))
    torch.testing.assert_close(out, attended(ragged).flatten(1, 2), **EXACT)


def test_keys_may_be_any_linear_resampling():
    query, key, value = tensors(4, 4)
    flip = Groups(lambda x: x[:, None], lambda x: x[:, 0], lambda x: x[:, None, ::2].flip(3))
    out = attended(Plan(query, key, value, flip, 1.0))
    everything = attended(Plan(query, key[:, ::2], value[:, ::2], Full(), 1.0))
    torch.testing.assert_close(out, everything, **EXACT)
    assert (dense(Plan(query, key, value, flip, 1.0)).unflatten(-1, (4, 4))[..., 1::2, :] == 0).all()


def test_a_row_costs_no_gradient_of_the_queries():
    query, key, value = (t.requires_grad_() for t in tensors(4, 4))
    weights = row(Plan(query, key, value, Full(), 1.0), 0, 3)
    assert not weights.requires_grad
    assert query.grad is None


def test_costs_count_pairs():
    query, key, value = tensors(*GRID)
    assert pairs(Plan(query, key, value, Full(), 1.0)) == 63 * 63
    # Two rows of three blocks of 9 tokens, and one row of three blocks of 3.
    assert pairs(Plan(query, key, value, Blocks(3), 1.0)) == 6 * 9 * 9 + 3 * 3 * 3
    windows = blocks_as_groups(Blocks(3), GRID, query.device)
    assert pairs(Plan(query, key, value, windows, 1.0)) == 9 * 9 * 9
    assert multiply_adds(Plan(query, key, value, Full(), 1.0)) == 63 * 63 * 3 * 8


def test_dropout_drops_in_training_only():
    x = torch.randn(1, 8, 8, 12)
    mixer = WindowMixer(12, 2, 4, attn_drop=0.5)
    assert not torch.equal(mixer(x), mixer(x))
    mixer.eval()
    assert torch.equal(mixer(x), mixer(x))


@pytest.mark.parametrize("relation", [Full(), Blocks((3, 3)), Blocks(2), Blocks((7, 9))])
def test_training_takes_other_kernels_and_the_same_numbers(relation):
    query, key, value = tensors(*GRID)
    plain = attended(Plan(query, key, value, relation, 0.4))
    leaves = [t.clone().requires_grad_() for t in (query, key, value)]
    trained = attended(Plan(*leaves, relation, 0.4))
    torch.testing.assert_close(trained, plain, **EXACT)
    exact = [t.clone().requires_grad_() for t in (query, key, value)]
    reference = attend(*exact, relation, scale=0.4, backend="reference")
    cotangent = torch.randn_like(plain)
    ours, theirs = (
        torch.autograd.grad((out * cotangent).sum(), inputs) for out, inputs in ((trained, leaves), (reference, exact))
    )
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, **EXACT)
