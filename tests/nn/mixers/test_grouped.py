"""Attention inside of groups: every way gives the same numbers and gradients; the fastest one is taken."""

from dataclasses import replace
from typing import get_args

import pytest
import torch

from windeye.nn.mixers import MIXERS, BiLevelRoutingMixer
from windeye.nn.mixers.grouped import KEPT, Way, grouped_attention, way_of
from windeye.nn.mixers.plan import attended
from windeye.patterns import Routed

EXACT = {"rtol": 1e-10, "atol": 1e-11}
WAYS = get_args(Way)


def tensors(*cells, cells_kv=None, width=5):
    shapes = [(2, 3, *c, 4, w) for c, w in ((cells, 6), (cells_kv or cells, 6), (cells_kv or cells, width))]
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


def pair_by_pair(query, key, value, absent, bias, scale):
    """Every query of every group and head by itself."""
    out = torch.zeros(*query.shape[:-1], value.shape[-1], dtype=query.dtype)
    batch, groups, *cells, heads, _ = query.shape
    cells_kv = key.shape[2:-2]
    out = out.flatten(2, -3)
    q, k, v = query.flatten(2, -3), key.flatten(2, -3), value.flatten(2, -3)
    at, at_kv = (list(torch.cartesian_prod(*(torch.arange(n) for n in c))) for c in (cells, cells_kv))
    for b in range(batch):
        for g in range(groups):
            present = [j for j in range(k.shape[2]) if absent is None or not absent[b % len(absent), g].flatten()[j]]
            for h in range(heads):
                for i in range(q.shape[2]):
                    if present:
                        scores = torch.stack([scale * (q[b, g, i, h] * k[b, g, j, h]).sum() for j in present])
                        if bias is not None:
                            places = [
                                tuple((at_kv[j] - at[i] + torch.tensor(bias.shape[1:]) // 2).tolist()) for j in present
                            ]
                            scores = scores + torch.stack([bias[(h, *place)] for place in places])
                        out[b, g, i, h] = scores.softmax(0) @ v[b, g, present, h]
    return out.reshape(*query.shape[:-1], value.shape[-1])


@pytest.mark.parametrize("hidden", [None, "some", "shared by the batch"])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_is_the_loop(way, biased, hidden):
    torch.manual_seed(0)
    inputs = tensors(3, 2)
    bias = torch.randn(4, 5, 3, dtype=torch.float64, requires_grad=True) if biased else None
    absent = None
    if hidden:
        absent = torch.rand(2 if hidden == "some" else 1, 3, 3, 2) < 0.4
        absent[..., 0, 0] = False
    leaves = inputs + ([bias] if biased else [])
    results = [
        grouped_attention(*inputs, absent, bias, 0.4, way=way),
        pair_by_pair(*inputs, absent, bias, 0.4),
    ]
    grad = torch.randn_like(results[0])
    for got, expected in zip(
        *((out, *torch.autograd.grad((out * grad).sum(), leaves)) for out in results), strict=True
    ):
        torch.testing.assert_close(got, expected, **EXACT)


@pytest.mark.parametrize("way", ["attend", "keep"])
def test_a_query_without_keys_gives_zeros_and_takes_no_gradient(way):
    inputs = tensors(2, 2)
    absent = torch.zeros(1, 3, 2, 2, dtype=torch.bool)
    absent[:, 1] = True
    out = grouped_attention(*inputs, absent, None, 0.4, way=way)
    assert torch.equal(out[:, 1], torch.zeros_like(out[:, 1]))
    for gradient in torch.autograd.grad(out.sum(), inputs):
        assert torch.equal(gradient[:, 1], torch.zeros_like(gradient[:, 1]))
        assert gradient.isfinite().all()


@pytest.mark.parametrize("way", WAYS)
def test_groups_may_have_other_keys_than_queries(way):
    inputs = tensors(2, 2, cells_kv=(3, 5))
    torch.testing.assert_close(
        grouped_attention(*inputs, None, None, 0.4, way=way), pair_by_pair(*inputs, None, None, 0.4), **EXACT
    )


def test_kept_weights_are_differentiated_once():
    inputs = tensors(2, 2)
    assert torch.autograd.gradcheck(lambda *t: grouped_attention(*t, None, None, 0.4, way="keep"), inputs)
    out = grouped_attention(*inputs, None, None, 0.4, way="keep")
    with pytest.raises(RuntimeError, match=r"differentiated once.*reference"):
        torch.autograd.grad(out.sum(), inputs, create_graph=True)


def test_the_way_follows_what_was_measured():
    few, some = torch.empty(1, 1, 4, 2, 8), torch.empty(1, 1, 49, 2, 8)
    many, bias = torch.empty(1, 1, KEPT + 1, 2, 8), torch.empty(2, 97)
    assert way_of(some, some, bias, None, trains=True) == "keep"
    assert way_of(few, few, None, None, trains=True) == "keep"
    assert way_of(few, many, None, None, trains=True) == "torch"
    assert way_of(some, some, None, None, trains=True) == "torch"
    assert way_of(many, many, bias, None, trains=True) == "attend"
    assert way_of(some, some, bias, None, trains=False) == "attend"
    assert way_of(some.bfloat16(), some.bfloat16(), bias, None, trains=True) == "attend"
    assert way_of(some.to("meta"), some.to("meta"), bias, None, trains=True) == "torch"


@pytest.mark.parametrize("kind", sorted(MIXERS))
def test_inference_mode_leaves_nothing_behind_that_cannot_be_trained_with(kind):
    layer = MIXERS[kind]().build(16, 4)
    x = torch.randn(1, 13, 11, 16)
    with torch.inference_mode():
        layer(x)
    layer(x).sum().backward()


@pytest.mark.parametrize("padding", ["masked", "input"])
@pytest.mark.parametrize("train", [False, True])
def test_small_regions_are_copied_and_give_the_same(padding, train, monkeypatch):
    layer = BiLevelRoutingMixer(16, 4, regions=4, keep=3, padding=padding).double()
    x = torch.randn(2, 14, 15, 16, dtype=torch.float64)
    results = []
    for most in (2**24, 0):
        monkeypatch.setattr("windeye.nn.mixers.routing.MOST_COPIED", most)
        with torch.set_grad_enabled(train):
            out = layer(x)
        assert (layer.plans(x)[0].faster is not None) == bool(most)
        grads = torch.autograd.grad(out.square().sum(), list(layer.parameters())) if train else ()
        results.append((out, *grads))
    for copied, routed in zip(*results, strict=True):
        torch.testing.assert_close(copied, routed, **EXACT)


@pytest.mark.parametrize("change", ["relation", "absent"])
def test_a_plan_with_another_relation_leaves_the_copies_behind(change):
    layer = BiLevelRoutingMixer(16, 4, regions=4, keep=3).double()
    (plan,) = layer.plans(torch.randn(2, 8, 8, 16, dtype=torch.float64))
    assert plan.faster is not None
    new = {"relation": Routed(plan.relation.index[..., :1].contiguous()), "absent": torch.rand(1, 8, 8) < 0.3}
    changed = replace(plan, **{change: new[change]})
    assert changed.faster is None
    plain = replace(changed, copied=None)
    assert torch.equal(attended(changed), attended(plain))
    assert not torch.allclose(attended(changed), attended(plan))
