"""Every registered pool keeps the contract; a new one is tested by registering and an entry in `oracles.pools`."""

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st

from oracles.pools import pooled
from windeye.nn.pools import POOLS, create_pool

DIM, TOKENS, SIDE = 24, 9, 3
EXACT = {"rtol": 1e-9, "atol": 1e-10}
VARIANTS = [
    ("average", {}),
    ("class_token", {}),
    ("mean_max", {}),
    ("ep", {"queries": 1}),
    ("ep", {"queries": 4}),
    ("ep", {"queries": 3, "reduction": 2}),
    ("ep", {"queries": DIM}),
    ("cross_attention", {"heads": 4}),
    ("cross_attention", {"heads": 3, "out_proj": False, "bias": True}),
    ("cross_attention", {"heads": 1, "query_proj": False, "bias": True}),
    ("simpool", {}),
    ("esimpool", {"heads": 4}),
    ("abmilp", {}),
    ("abmilp", {"attention": False}),
    ("clip", {"heads": 4, "tokens": TOKENS}),
    ("siglip", {"heads": 4}),
    ("aim", {"heads": 4}),
    ("coca", {"heads": 3, "head_dim": 5, "queries": 4}),
    ("cait", {"heads": 4}),
    ("cae", {"heads": 4}),
    ("jepa", {"heads": 4}),
    ("dinovit", {"heads": 4}),
    ("cbam", {}),
    ("dolg", {}),
]
KNOWS_ORDER = {"class_token", "clip", "cbam"}
COUNTS_ITS_OWN = {"clip", "cait"}
"""Pools with keys of their own, which weigh less among twice as many tokens."""
SOFTMAX = {"ep", "cross_attention", "simpool", "esimpool", "abmilp", "siglip", "aim", "coca", "cae", "jepa", "average"}
"""Pools whose maps add up to one."""
WITHOUT_MAPS = {"class_token", "mean_max", "dinovit"}
UNUSED = {"coca": {"kv.weight"}, "cae": {"unused_norm.weight", "unused_norm.bias"}}

every_pool = pytest.mark.parametrize(("kind", "settings"), VARIANTS, ids=lambda v: str(v))


def built(kind, settings, dtype=torch.float64):
    """A pool in evaluation mode whose every tensor matters: what starts at zero, one or near it does not stay there."""
    pool = create_pool(kind, DIM, **settings).to(dtype).eval()
    for parameter in pool.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    for name, buffer in pool.named_buffers():
        if buffer.is_floating_point():
            torch.nn.init.uniform_(buffer, 0.5, 1.5) if "var" in name else torch.nn.init.normal_(buffer)
    return pool


def tokens(batch=3, count=TOKENS):
    return torch.randn(batch, count, DIM, dtype=torch.float64)


def oracle(kind, pool, x):
    return torch.stack([pooled[kind](pool, row) for row in x])


def test_every_registered_pool_is_tested():
    assert {kind for kind, _ in VARIANTS} == set(POOLS) == set(pooled)


@every_pool
def test_a_pool_is_its_published_text_with_all_its_gradients(kind, settings):
    pool, x = built(kind, settings), tokens().requires_grad_()
    out, expected = pool(x), oracle(kind, pool, x)
    assert out.shape == (3, pool.out_dim)
    torch.testing.assert_close(out, expected, **EXACT)
    leaves, cotangent = [x, *pool.parameters()], torch.randn_like(expected)
    ours, theirs = (
        torch.autograd.grad((value * cotangent).sum(), leaves, allow_unused=True) for value in (out, expected)
    )
    for a, b, leaf in zip(ours, theirs, leaves, strict=True):
        a, b = (torch.zeros_like(leaf) if g is None else g for g in (a, b))
        torch.testing.assert_close(a, b, **EXACT)


@runs(max_examples=60, deadline=None)
@given(
    st.sampled_from([variant for variant in VARIANTS if variant[0] not in {"clip", "cbam"}]),
    st.integers(1, 4),
    st.integers(1, 13),
    st.integers(0, 2**31),
)
def test_any_tokens_may_be_padding(variant, batch, count, seed):
    """The class token alone must be there."""
    torch.manual_seed(seed)
    pool, x = built(*variant), tokens(batch, count)
    padding = torch.rand(batch, count) < torch.rand(batch, 1)
    padding[:, 0] = False
    expected = torch.cat([oracle(variant[0], pool, row[~hidden][None]) for row, hidden in zip(x, padding, strict=True)])
    torch.testing.assert_close(pool(x, padding), expected, **EXACT)


@every_pool
def test_gradients_are_those_of_differences(kind, settings):
    pool, x = built(kind, settings), tokens(batch=2).requires_grad_()
    assert torch.autograd.gradcheck(pool, (x,), fast_mode=True)


@every_pool
def test_every_parameter_gets_a_gradient(kind, settings):
    pool = built(kind, settings)
    pool(tokens().requires_grad_()).square().sum().backward()
    missing = {name for name, p in pool.named_parameters() if p.grad is None or not p.grad.isfinite().all()}
    assert missing == (UNUSED["cae"] if kind == "cae" else set())


@every_pool
def test_the_order_of_tokens_matters_to_those_that_know_it(kind, settings):
    pool, x = built(kind, settings), tokens()
    turned = pool(x[:, torch.arange(TOKENS).roll(4)])
    assert torch.allclose(turned, pool(x), rtol=1e-9, atol=1e-10) == (kind not in KNOWS_ORDER)


@every_pool
def test_tokens_that_come_twice_change_nothing(kind, settings):
    if kind in {"clip", "cbam"}:
        pytest.skip("has positions for a fixed number of tokens, or sees neighbours")
    pool, x = built(kind, settings), tokens()
    twice = pool(torch.cat([x, x], dim=1))
    assert torch.allclose(twice, pool(x), rtol=1e-9, atol=1e-10) == (kind not in COUNTS_ITS_OWN)


@every_pool
@pytest.mark.parametrize("training", [False, True])
def test_padding_is_a_shorter_row(kind, settings, training):
    """The padding holds NaN; in training, when batch norms count tokens, all lengths are the same."""
    if kind in {"clip", "cbam"}:
        pytest.skip("has positions for a fixed number of tokens, or needs a map: see below")
    pool = built(kind, settings).train(training)
    x, lengths = tokens(), torch.tensor([9, 5, 1])
    if training:
        x, lengths = x[:1].expand(3, -1, -1).clone(), torch.tensor([5, 5, 5])
    padding = torch.arange(TOKENS) >= lengths[:, None]
    x[padding] = torch.nan
    twin = copy.deepcopy(pool)
    out = pool(x, padding)
    if training:
        torch.testing.assert_close(out, twin(x[:, :5]), **EXACT)
        for ours, theirs in zip(pool.buffers(), twin.buffers(), strict=True):
            torch.testing.assert_close(ours, theirs)
        return
    for entry, length in enumerate(lengths):
        torch.testing.assert_close(out[entry : entry + 1], pool(x[entry : entry + 1, :length]), **EXACT)


def test_clip_leaves_padding_out_of_mean_and_keys():
    pool, x = built("clip", {"heads": 4, "tokens": TOKENS}), tokens()
    shorter = built("clip", {"heads": 4, "tokens": 5})
    shorter.load_state_dict(pool.state_dict() | {"positions": pool.positions[:6]})
    padding = (torch.arange(TOKENS) >= 5).expand(3, -1)
    torch.testing.assert_close(pool(x, padding), shorter(x[:, :5]), **EXACT)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", ["cbam", "dolg", "ep"])
def test_padding_around_a_map_is_a_smaller_map(kind, training):
    pool = built(kind, {"queries": 4} if kind == "ep" else {}).train(training)
    twin = copy.deepcopy(pool)
    x = torch.randn(3, 6, 7, DIM, dtype=torch.float64)
    padding = torch.ones(3, 6, 7, dtype=torch.bool)
    padding[:, :4, :5] = False
    torch.testing.assert_close(pool(x, padding), twin(x[:, :4, :5]), **EXACT)


@every_pool
def test_maps_rows_and_channels_first_agree(kind, settings):
    pool, x = built(kind, settings), torch.randn(2, SIDE, SIDE, DIM, dtype=torch.float64)
    if kind == "class_token":
        with pytest.raises(ValueError, match="3 x 3 tokens has no class token"):
            pool(x)
        return
    torch.testing.assert_close(pool(x), pool(x.flatten(1, 2)), **EXACT)
    torch.testing.assert_close(pool(x.permute(0, 3, 1, 2), channels_first=True), pool(x), **EXACT)
    if kind not in WITHOUT_MAPS:
        maps = pool.maps(x)
        assert maps.shape[2:] == (SIDE, SIDE)
        torch.testing.assert_close(maps.flatten(2), pool.maps(x.flatten(1, 2)), **EXACT)


@every_pool
def test_maps_are_positive_and_leave_padding_out(kind, settings):
    pool, x = built(kind, settings), tokens()
    padding = torch.arange(TOKENS) >= torch.tensor([9, 5, 1])[:, None]
    assert pool.has_maps == (kind not in WITHOUT_MAPS)
    if kind in WITHOUT_MAPS:
        with pytest.raises(ValueError, match="does not weigh tokens"):
            pool.maps(x)
        return
    maps = pool.maps(x, padding)
    assert (maps >= 0).all()
    assert (maps.masked_select(padding[:, None]) == 0).all()
    total = maps.sum(dim=2)
    if kind in SOFTMAX:
        torch.testing.assert_close(total, torch.ones_like(total))
    elif kind in COUNTS_ITS_OWN:
        assert (total < 1).all()


@every_pool
def test_batch_entries_are_independent(kind, settings):
    pool, x = built(kind, settings), tokens()
    whole = pool(x)
    for entry in range(3):
        torch.testing.assert_close(whole[entry : entry + 1], pool(x[entry : entry + 1]), **EXACT)


@every_pool
def test_bfloat16_is_close_to_exact(kind, settings):
    """Within what the rounding of inputs and weights to eight bits does to the exact result, five times over."""
    coarse = built(kind, settings).bfloat16()
    fine, x = copy.deepcopy(coarse).double(), tokens().bfloat16()
    with torch.no_grad():
        exact = fine(x.double())
        out = coarse(x)
        assert out.dtype == torch.bfloat16
        shaken = copy.deepcopy(fine)
        for parameter in shaken.parameters():
            parameter.mul_(1 + torch.randn_like(parameter) * 2**-8)
        bound = (shaken(x.double() * (1 + torch.randn_like(x.double()) * 2**-8)) - exact).abs().mean()
        assert (out.double() - exact).abs().mean() <= 5 * bound + 2**-8 * exact.abs().mean()


@every_pool
def test_under_autocast_pools_run(kind, settings):
    pool, x = built(kind, settings, torch.float32), tokens().float()
    with torch.autocast("cpu", torch.bfloat16):
        out = pool(x)
    assert (out.float() - pool(x)).abs().max() <= 0.1 * pool(x).abs().max()


@every_pool
def test_copies_and_files_are_the_pool(kind, settings):
    pool, x = built(kind, settings), tokens()
    assert torch.equal(copy.deepcopy(pool)(x), pool(x))
    assert torch.equal(pickle.loads(pickle.dumps(pool))(x), pool(x))
    other = create_pool(kind, DIM, **settings).double().eval()
    other.load_state_dict(pool.state_dict())
    assert torch.equal(other(x), pool(x))


@every_pool
def test_strided_tokens_are_as_good_as_any(kind, settings):
    pool = built(kind, settings)
    x = torch.randn(3, DIM, TOKENS, dtype=torch.float64).transpose(1, 2)
    torch.testing.assert_close(pool(x), pool(x.contiguous()), **EXACT)


@every_pool
def test_other_shapes_are_refused(kind, settings):
    pool = built(kind, settings)
    with pytest.raises(ValueError, match=f"dim {DIM}"):
        pool(torch.randn(2, TOKENS, DIM + 1, dtype=torch.float64))
    with pytest.raises(ValueError, match=f"dim {DIM}"):
        pool(torch.randn(2, DIM, dtype=torch.float64))
    with pytest.raises(ValueError, match="at least one token"):
        pool(torch.randn(2, 0, DIM, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"padding must be \[3, 9\] as x, got shape \(3, 8\)"):
        pool(tokens(), torch.zeros(3, 8, dtype=torch.bool))
    with pytest.raises(TypeError, match="padding must be bool"):
        pool(tokens(), torch.zeros(3, 9))


@pytest.mark.parametrize("kind", ["ep", "clip", "esimpool", "aim", "abmilp", "cbam"])
def test_compiled_graphs_have_no_breaks(kind):
    settings = dict(VARIANTS)[kind]
    pool, x = built(kind, settings), tokens()
    torch._dynamo.reset()
    compiled = torch.compile(pool, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), pool(x), **EXACT)
