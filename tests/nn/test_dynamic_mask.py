"""Dynamic mask attention: a loop over queries, the official layers, and what it becomes at its ends."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from golden import load, same, under
from nn import mixer_kit as kit
from oracles import dynamic_mask as oracle
from windeye import Expiry, attend, topw_expiry
from windeye.nn import CausalAttention, DynamicMaskAttention

W = 3


@st.composite
def layers(draw):
    heads, group = 4, draw(st.sampled_from((1, 2, 4)))
    options = {
        "score_heads": draw(st.sampled_from(("query", "kv"))),
        "score": draw(st.sampled_from(("exp", "linear"))),
        "window": draw(st.sampled_from((None, None, 1, 4, 30))),
        "rotary_base": draw(st.sampled_from((None, 10000.0))),
        "qk_norm": draw(st.booleans()),
        "bias": draw(st.booleans()),
    }
    torch.manual_seed(draw(st.integers(0, 99)))
    layer = DynamicMaskAttention(
        6, heads, W, kv_heads=heads // group, head_dim=2, a_std=draw(st.sampled_from((0.0, 1.0))), **options
    ).double()
    for parameter in layer.parameters():
        if parameter is not layer.A:
            torch.nn.init.normal_(parameter, std=0.7)
    n = draw(st.sampled_from((1, W, W + 1, 5 * W + 3)))
    tokens = torch.randn(n, 6, dtype=torch.float64)
    if draw(st.booleans()):  # the same token again and again: scores are equal
        tokens = tokens[torch.randint(max(1, n // 3), (n,))]
    return layer, tokens


@given(case=layers())
@settings(max_examples=50, deadline=None, derandomize=True)
def test_it_is_the_loop_over_queries_forward_and_gradient(case):
    layer, x = case
    x.requires_grad_()
    names, parameters = zip(*layer.named_parameters(), strict=True)
    expected = oracle.layer(
        x, dict(zip(names, parameters, strict=True)), heads=layer.heads, keep=layer.keep,
        score_heads=layer.A.numel(), score=layer.score, window=layer.window, rotary_base=layer.rotary_base,
    )  # fmt: skip
    out = layer(x[None])[0]
    same(out, expected)
    weights = torch.randn_like(out)
    ours = torch.autograd.grad((out * weights).sum(), [x, *parameters])
    theirs = torch.autograd.grad((expected * weights).sum(), [x, *parameters], allow_unused=True)
    for mine, other in zip(ours, theirs, strict=True):
        kit.same(mine, torch.zeros_like(mine) if other is None else other)


def pair(**options):
    """A layer without selection, and causal attention with the same weights."""
    mask = DynamicMaskAttention(16, 4, kv_heads=2, **options).double()
    plain = CausalAttention(16, 4, kv_heads=2).double()
    with torch.no_grad():
        plain.qkv_proj.weight.copy_(torch.cat([p.weight for p in (mask.q_proj, mask.k_proj, mask.v_proj)]))
        plain.out_proj.weight.copy_(mask.out_proj.weight)
    return mask, plain


def test_with_room_for_all_and_equal_scores_it_is_causal_attention():
    mask, plain = pair(keep=20)
    x = torch.randn(2, 20, 16, dtype=torch.float64)
    same(mask(x), plain(x))


def test_equal_scores_keep_a_sliding_window():
    mask, plain = pair(keep=5)
    x = torch.randn(2, 30, 16, dtype=torch.float64)
    sliding = CausalAttention(16, 4, window=5, kv_heads=2).double()
    sliding.load_state_dict(plain.state_dict())
    same(mask(x), sliding(x))


def test_with_room_for_all_the_score_is_an_additive_bias():
    mask, _ = pair(keep=20, rotary_base=None, a_std=1.0)
    x = torch.randn(2, 20, 16, dtype=torch.float64)
    query, key, value = (p(x).unflatten(-1, (-1, 4)).transpose(1, 2) for p in (mask.q_proj, mask.k_proj, mask.v_proj))
    future = torch.ones(20, 20, dtype=torch.bool).triu(1)
    bias = mask.scores(x)[:, :, None].expand(-1, -1, 20, -1).masked_fill(future, -torch.inf)
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, enable_gqa=True)
    same(mask(x), mask.out_proj(out.transpose(1, 2).flatten(-2)))


def scored(n=40, keep=6, **options):
    layer = DynamicMaskAttention(16, 4, keep, kv_heads=2, a_std=2.0, **options).double()
    return layer, torch.randn(2, n, 16, dtype=torch.float64)


def test_a_key_changes_nothing_once_it_has_expired():
    """Its value decides its score, so only its key can be changed: k_proj of one token, by a hook."""
    layer, x = scored()
    expiry = topw_expiry(layer.scores(x), 6)[0].amax(dim=0)  # of the last head that keeps it
    token = int(((expiry > torch.arange(40)) & (expiry < 40)).nonzero()[0])
    last = int(expiry[token])
    before = layer(x)

    def hook(_module, _inputs, out):
        out = out.clone()
        out[0, token] += 5.0
        return out

    handle = layer.k_proj.register_forward_hook(hook)
    after = layer(x)
    handle.remove()
    assert not torch.allclose(after[0, token:last], before[0, token:last])
    assert torch.equal(after[0, last:], before[0, last:])


def test_the_future_changes_nothing():
    layer, x = scored()
    kit.assert_causal(layer, x, torch.randn_like(x))


def test_keys_that_nobody_keeps_get_no_gradient():
    layer, x = scored(score_heads="kv")
    keys = []
    layer.k_proj.register_forward_hook(lambda _m, _i, out: keys.append(out) or out.retain_grad())
    layer(x).square().sum().backward()
    born = torch.arange(40)
    unseen = topw_expiry(layer.scores(x), 6) <= born
    assert unseen.any()
    gradient = keys[0].grad.unflatten(-1, (2, 4)).transpose(1, 2)
    assert (gradient[unseen] == 0).all()
    assert (gradient[~unseen] != 0).any(dim=-1).all()


def test_training_starts_through_the_factor_of_the_score():
    layer = DynamicMaskAttention(16, 4, 6).double()
    layer(torch.randn(2, 20, 16, dtype=torch.float64)).square().sum().backward()
    assert (layer.dt_proj.weight.grad == 0).all()
    assert (layer.A.grad != 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_tokens_rank_alike_in_a_pass_and_in_steps(dtype):
    """Matrix products of other shapes round otherwise; the kept positions must not hang on that."""
    layer = DynamicMaskAttention(250, 5, 16, a_std=2.0).to(dtype)
    x = torch.randn(20, 250).to(dtype)[torch.randint(20, (2, 90))]
    _, state = layer(x[:, :30], return_state=True)
    for t in range(30, 90):
        _, state = layer.step(x[:, t], state)
    _, whole = layer(x, return_state=True)
    assert torch.equal(state.position, whole.position)


def test_the_state_stops_growing_and_so_does_a_step():
    layer, x = scored(n=300)
    _, state = layer(x, return_state=True)
    _, after = layer.step(x[:, 0], state)
    assert state.key.shape == after.key.shape == (2, 6, 4, 4)
    assert after.nbytes == state.nbytes == 2 * (layer.state_bytes(300) + 8)
    assert layer.state_bytes(6) == layer.state_bytes(10**9) == 6 * 4 * (2 * 4 * 8 + 8 + 8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("score", ["exp", "linear"])
def test_enormous_scores_stay_finite(dtype, score):
    layer = DynamicMaskAttention(16, 4, 6, score=score).to(dtype)
    with torch.no_grad():
        layer.A.copy_(torch.tensor([3e4, -3e4, 200.0, 1e-3]))
    x = torch.randn(2, 30, 16).to(dtype).requires_grad_()
    out, state = layer(x[:, :29], return_state=True)
    step, _ = layer.step(x[:, 29], state)
    assert layer.scores(x).isfinite().all()
    assert out.isfinite().all()
    assert step.isfinite().all()
    (out.float().square().sum() + step.float().square().sum()).backward()
    assert x.grad.isfinite().all()


def test_scores_below_the_guard_are_the_exponential():
    layer, x = scored()
    tau = F.softplus(layer.dt_proj(layer.v_proj(x)))
    kit.same(layer.scores(x), torch.exp(layer.A * tau).transpose(1, 2))


@pytest.mark.parametrize("bias", [False, True])
def test_scores_follow_their_weights(bias):
    """Without gradients the product of the weights is kept, but not beyond a change of theirs."""
    layer, x = scored(bias=bias)
    changes = [
        lambda: layer.dt_proj.weight.mul_(2),
        lambda: layer.v_proj.weight.add_(0.5),
        lambda: layer.A.neg_(),
        lambda: layer.load_state_dict(scored(bias=bias)[0].state_dict()),
        lambda: setattr(layer.v_proj, "weight", torch.nn.Parameter(-layer.v_proj.weight)),
        lambda: layer.bfloat16().double(),
    ] + ([lambda: layer.v_proj.bias.add_(1)] if bias else [])
    for change in changes:
        with torch.no_grad():
            before = layer.scores(x)
            assert torch.equal(layer.scores(x), before)
            change()
            after = layer.scores(x)
        same(after, layer.scores(x).detach())
        assert not torch.equal(after, before)
    with torch.inference_mode():
        kit.same(layer.scores(x), after)


def test_a_nan_is_reported():
    layer, x = scored()
    x[1, 7] = torch.nan
    with pytest.raises(ValueError, match=r"score is NaN at \[batch, head, key\] = \[1, 0, 7\]"):
        layer(x)


DOGE = ["doge_topw_gqa", "doge_dense_bias", "doge_left_padding", "doge2_kv_head_scores"]


def official(case):
    meta, numbers = load("dma", case)
    config, weights = meta["config"], under("weight.", numbers)
    layer = DynamicMaskAttention(
        config["hidden"], config["heads"], config["keep_window_size"], kv_heads=config["kv_heads"],
        head_dim=config["head_dim"], qk_norm="q_norm.weight" in weights,
        score_heads="query" if weights["A"].numel() == config["heads"] else "kv",
    ).double()  # fmt: skip
    layer.load_state_dict({name.replace("o_proj", "out_proj"): t for name, t in weights.items()})
    return layer, numbers


@pytest.mark.parametrize("case", DOGE)
def test_the_official_layers_with_all_gradients(case):
    layer, numbers = official(case)
    x = numbers["input.x"].requires_grad_()
    visible = numbers["input.visible"][:, 0]
    padding = ~visible[:, -1]
    out = layer(x, padding=padding)
    seen = visible.any(dim=-1)
    same(out[seen], numbers["output.y"][seen])
    kit.same(layer.scores(x), numbers["output.delta"])
    if padding.any():
        return  # its gradients include those of rows that average over everything
    names, parameters = zip(*layer.named_parameters(), strict=True)
    of_x, *rest = torch.autograd.grad((out * numbers["input.do"]).sum(), [x, *parameters])
    same(of_x, numbers["grad_input.x"])
    for name, gradient in zip(names, rest, strict=True):
        same(gradient, numbers[f"grad_weight.{name.replace('out_proj', 'o_proj')}"])


def test_the_kernels_reference_with_a_score_per_key_head():
    """Query, key and value are given here; its score is the linear one."""
    meta, numbers = load("dma", "flash_per_query")
    tensors = {name: numbers[f"input.{name}"].requires_grad_() for name in "qkv"}
    factor, dt = (numbers[f"weight.{name}"].requires_grad_() for name in ("A", "dt_proj"))
    query, key, value = (t.transpose(1, 2) for t in tensors.values())
    score = (factor * F.softplus(value.flatten(-2) @ dt.T)).transpose(1, 2)
    same(score, numbers["output.bias"][:, :, -1])
    out = attend(query, key, value, Expiry(topw_expiry(score, meta["config"]["window_size"])), bias=score)
    same(out, numbers["output.o"])
    leaves = [*tensors.values(), factor, dt]
    gradients = torch.autograd.grad((out * numbers["input.do"]).sum(), leaves)
    for name, gradient in zip(("input.q", "input.k", "input.v", "weight.A", "weight.dt_proj"), gradients, strict=True):
        same(gradient, numbers[f"grad_{name}"])


WRONG = {
    "keep zero": (lambda: DynamicMaskAttention(16, 4, 0), "keep must be at least 1, got 0"),
    "keep negative": (lambda: DynamicMaskAttention(16, 4, -2), "keep must be at least 1, got -2"),
    "window zero": (lambda: DynamicMaskAttention(16, 4, 3, window=0), "window must be at least 1, got 0"),
    "heads": (lambda: DynamicMaskAttention(16, 3, 3), "dim 16 must be a multiple of heads 3"),
    "kv_heads": (lambda: DynamicMaskAttention(16, 4, 3, kv_heads=3), "kv_heads 3 must divide heads 4"),
    "odd rotation": (lambda: DynamicMaskAttention(12, 4, 3), "an even head_dim, got 3; use rotary_base=None"),
    "score": (lambda: DynamicMaskAttention(16, 4, 3, score="relu"), "score must be one of exp, linear, got 'relu'"),
    "score_heads": (
        lambda: DynamicMaskAttention(16, 4, 3, score_heads="all"), "score_heads must be one of query, kv, got 'all'",
    ),
    "a_std": (lambda: DynamicMaskAttention(16, 4, 3, a_std=-1.0), "a_std must be at least 0, got -1.0"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused(name):
    make, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        make()


def test_the_state_of_a_layer_that_keeps_other_keys_is_refused():
    layer, x = scored()
    _, state = layer(x, return_state=True)
    with pytest.raises(ValueError, match=r"keep=6, window=None, this one has keep=7, window=None"):
        scored(keep=7)[0](x, state=state)
    with pytest.raises(ValueError, match=r"keep=6, window=None, this one has keep=6, window=3"):
        scored(window=3)[0](x, state=state)


def test_a_factor_of_another_size_is_refused():
    layer, _ = scored()
    with pytest.raises(RuntimeError, match="size mismatch for A"):
        layer.load_state_dict(layer.state_dict() | {"A": torch.zeros(3)})


def test_a_pass_compiles_into_one_graph():
    layer, x = scored()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x.requires_grad_()
    out = compiled(x)
    same(out, layer(x))
    weights = torch.randn_like(out)
    (ours,) = torch.autograd.grad((out * weights).sum(), x)
    (expected,) = torch.autograd.grad((layer(x) * weights).sum(), x)
    same(ours, expected)
