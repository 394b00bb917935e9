"""Memories that learn while they read equal the loop over tokens, outputs, states and gradients."""

from dataclasses import dataclass
from itertools import pairwise, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import windeye
from oracles.associative import memory
from windeye.kernels import native
from windeye.kernels.associative.coefficients import coefficients
from windeye.ops import MemoryDiverged, associative_recall

BACKENDS = ("torch",) if native.cpu is None else ("cpu", "torch")
needs_kernel = pytest.mark.skipif(native.cpu is None, reason="needs the compiled module")
EXACT = {"rtol": 1e-9, "atol": 1e-10}


@dataclass(frozen=True)
class Case:
    batch: int = 2
    tokens: int = 7
    heads: int = 2
    dim: int = 3
    value_dim: int = 4
    depth: int = 2
    chunk_size: int = 3
    gates: str = "both"
    """none | momentum | forget | both | hard (gates of exactly 0 and 1 among others)"""
    activation: str = "gelu"
    residual: bool = False
    clip: float | None = None
    predict_decayed: bool = False
    reduction: str = "sum"
    lengths: tuple[int, ...] | None = None


def problem(case, seed=0, dtype=torch.float64):
    """Arguments of both, and the leaves whose gradients are compared."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    value_dim = case.dim if case.residual else case.value_dim
    shape = (case.batch, case.tokens, case.heads)
    q, k, v = random(*shape, case.dim), random(*shape, case.dim), random(*shape, value_dim)
    widths = [case.dim, *[5] * (case.depth - 1), value_dim]
    weights = [random(case.heads, i, o) * i**-0.5 for i, o in pairwise(widths)]
    gate = {"step_size": 0.3 * random(*shape).sigmoid()}
    if case.gates in ("momentum", "both", "hard"):
        gate["momentum"] = random(*shape).sigmoid()
    if case.gates in ("forget", "both", "hard"):
        gate["forget"] = 0.3 * random(*shape).sigmoid()
    if case.gates == "hard":
        for name in ("momentum", "forget"):
            chosen = torch.randint(4, shape, generator=generator)
            gate[name] = torch.where(chosen == 0, 0, torch.where(chosen == 1, 1, gate[name])).to(dtype)
    gain = 0.3 * random(case.heads, case.dim) if case.residual else None
    leaves = [q, k, v, *weights, *gate.values(), *([] if gain is None else [gain])]
    for leaf in leaves:
        leaf.requires_grad_()
    options = {
        "chunk_size": case.chunk_size, "activation": case.activation, "residual_gain": gain,
        "predict_decayed": case.predict_decayed, "max_grad_norm": case.clip, "reduction": case.reduction,
        "lengths": None if case.lengths is None else torch.tensor(case.lengths),
    }  # fmt: skip
    return (q, k, v, weights), gate | options, leaves


def assert_equal(case, seed=0, backend="auto"):
    arguments, options, leaves = problem(case, seed)
    out, state = windeye.associative_memory(*arguments, **options, return_state=True, backend=backend)
    expected, after = memory(*arguments, **options)
    live = torch.ones(case.batch, case.tokens, dtype=torch.bool)
    if case.lengths is not None:
        live = torch.arange(case.tokens) < options["lengths"][:, None]
    torch.testing.assert_close(out[live], expected[live], **EXACT)
    rows = list(product(range(case.batch), range(case.heads)))
    flat = [torch.stack([torch.cat([w.flatten() for w in after[row][which]]) for row in rows]) for which in (0, 1)]
    for ours, theirs in zip((state.weights, state.momentum), flat, strict=True):
        torch.testing.assert_close(ours.flatten(0, 1), theirs, **EXACT)
    cotangents = [torch.randn_like(t) for t in (out, *flat)]
    live = live[..., None, None]

    def pulled(out, weights, momentum):
        loss = (out * cotangents[0] * live).sum() + (weights * cotangents[1]).sum() + (momentum * cotangents[2]).sum()
        grads = torch.autograd.grad(loss, leaves, allow_unused=True)
        return [torch.zeros_like(leaf) if g is None else g for g, leaf in zip(grads, leaves, strict=True)]

    ours = pulled(out, state.weights.flatten(0, 1), state.momentum.flatten(0, 1))
    theirs = pulled(expected, *flat)
    for mine, yours in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, yours, rtol=1e-8, atol=1e-9)


@st.composite
def cases(draw):
    tokens = draw(st.integers(1, 9))
    batch = draw(st.integers(1, 3))
    lengths = draw(st.none() | st.tuples(*[st.integers(0, tokens)] * batch))
    return Case(
        batch=batch,
        tokens=tokens,
        heads=draw(st.integers(1, 2)),
        dim=draw(st.integers(1, 4)),
        value_dim=draw(st.integers(1, 4)),
        depth=draw(st.integers(1, 3)),
        chunk_size=draw(st.integers(1, 10)),
        gates=draw(st.sampled_from(["none", "momentum", "forget", "both", "hard"])),
        activation=draw(st.sampled_from(["gelu", "silu", "tanh"])),
        reduction=draw(st.sampled_from(["sum", "mean"])),
        lengths=lengths,
    )


@settings(max_examples=80, deadline=None)
@given(cases(), st.integers(0, 99), st.sampled_from(BACKENDS))
def test_it_equals_the_loop_over_tokens(case, seed, backend):
    assert_equal(case, seed, backend)


@pytest.mark.parametrize("instructions", native.instruction_sets())
def test_every_instruction_set_equals_the_loop(instructions, monkeypatch):
    monkeypatch.setenv("WINDEYE_ISA", instructions)
    for activation in ("gelu", "silu", "relu", "tanh"):
        assert_equal(Case(tokens=21, dim=9, chunk_size=18, activation=activation, lengths=(21, 13)), backend="cpu")


@needs_kernel
@pytest.mark.parametrize("threads", [1, 3])
def test_the_kernel_gives_the_same_bits_with_any_number_of_threads(threads):
    arguments, options, leaves = problem(Case(batch=4, tokens=21, chunk_size=8), dtype=torch.float32)
    found = []
    for number in (2, threads):
        torch.set_num_threads(number)
        out = windeye.associative_memory(*arguments, **options, backend="cpu")
        found.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    torch.set_num_threads(1)
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours, theirs)


@needs_kernel
def test_the_kernel_and_the_torch_form_agree_in_float32():
    case = Case(tokens=200, dim=24, value_dim=24, chunk_size=64, reduction="mean", lengths=(200, 130))
    found = []
    for backend in BACKENDS:
        arguments, options, leaves = problem(case, dtype=torch.float32)
        out = windeye.associative_memory(*arguments, **options, backend=backend)
        live = torch.arange(200)[None, :, None, None] < options["lengths"][:, None, None, None]
        found.append([out * live, *torch.autograd.grad((out * live).square().sum(), leaves)])
    for ours, theirs in zip(*found, strict=True):
        assert (ours - theirs).norm() < 2e-5 * theirs.norm()


@needs_kernel
def test_options_that_the_kernel_lacks_are_refused_by_name():
    arguments, options, _ = problem(Case(clip=0.5))
    with pytest.raises(ValueError, match=r'backend "cpu" cannot do this: max_grad_norm is left to the torch form'):
        windeye.associative_memory(*arguments, **options, backend="cpu")
    with pytest.raises(ValueError, match=r"backend must be one of auto, cpu, torch, got 'cuda'"):
        windeye.associative_memory(*arguments, **options, backend="cuda")


@pytest.mark.parametrize(
    "case",
    [
        Case(residual=True),
        Case(residual=True, depth=3, dim=4, chunk_size=1),
        Case(residual=True, depth=1, clip=0.7, gates="hard"),
        Case(clip=0.5, depth=3),
        Case(predict_decayed=True, depth=2, gates="hard"),
        Case(predict_decayed=True, depth=1, chunk_size=1),
        Case(activation="relu"),
        Case(tokens=33, chunk_size=8, lengths=(33, 20)),
    ],
    ids=str,
)
def test_it_equals_the_loop_with_every_option(case):
    assert_equal(case)


def pieces_of(arguments, options, cuts, **more):
    """The same call in pieces, each going on from the state of the one before."""
    q, k, v, weights = arguments
    gates = {name: options[name] for name in ("step_size", "momentum", "forget") if name in options}
    rest = {name: value for name, value in options.items() if name not in gates and name != "lengths"}
    outs, state = [], None
    for a, b in zip([0, *cuts], [*cuts, q.shape[1]], strict=True):
        out, state = windeye.associative_memory(
            q[:, a:b], k[:, a:b], v[:, a:b], weights, **{n: g[:, a:b] for n, g in gates.items()}, **rest, **more,
            initial_state=state, return_state=True,
        )  # fmt: skip
        outs.append(out)
    return torch.cat(outs, dim=1), state


@pytest.mark.parametrize("case", [Case(tokens=11, chunk_size=4), Case(tokens=11, residual=True, chunk_size=5)], ids=str)
def test_it_can_be_cut_anywhere(case):
    """Also within a chunk, and token by token; gradients cross the cut."""
    arguments, options, leaves = problem(case)
    whole, final = windeye.associative_memory(*arguments, **options, return_state=True)
    cotangent = torch.randn_like(whole)
    grads = torch.autograd.grad((whole * cotangent).sum(), leaves, retain_graph=True)
    for cuts in [[t] for t in range(12)] + [[2, 3, 9], list(range(1, 11))]:
        out, state = pieces_of(arguments, options, cuts)
        torch.testing.assert_close(out, whole, **EXACT)
        for ours, theirs in zip(state, final, strict=True):
            torch.testing.assert_close(ours, theirs, **EXACT)
        for ours, theirs in zip(torch.autograd.grad((out * cotangent).sum(), leaves), grads, strict=True):
            torch.testing.assert_close(ours, theirs, **EXACT)


def test_rows_may_stand_at_different_places_of_their_chunks():
    case = Case(batch=3, tokens=10, chunk_size=4, lengths=(3, 10, 6))
    (q, k, v, weights), options, _ = problem(case)
    _, state = windeye.associative_memory(q, k, v, weights, **options, return_state=True)
    more, again, _ = problem(case, seed=1)
    out, after = windeye.associative_memory(
        *more[:3], weights, **again | {"lengths": torch.tensor([9, 1, 10])}, initial_state=state, return_state=True
    )
    for row, (n, m) in enumerate(zip(case.lengths, (9, 1, 10), strict=True)):

        def joined(first, then, row=row, n=n, m=m):
            return torch.cat((first[row : row + 1, :n], then[row : row + 1, :m]), dim=1)

        tokens = [joined(first, then) for first, then in zip((q, k, v), more[:3], strict=True)]
        gates = {name: joined(options[name], again[name]) for name in ("step_size", "momentum", "forget")}
        alone, own = windeye.associative_memory(*tokens, weights, **gates, chunk_size=4, return_state=True)
        torch.testing.assert_close(out[row : row + 1, :m], alone[:, n:], **EXACT)
        for ours, theirs in zip(after, own, strict=True):
            torch.testing.assert_close(ours[row : row + 1], theirs, **EXACT)


def test_recomputing_changes_no_bit():
    arguments, options, leaves = problem(Case(tokens=9))
    grads = []
    for recompute in (False, True):
        out = windeye.associative_memory(*arguments, **options, recompute=recompute, backend="torch")
        grads.append(torch.autograd.grad(out.square().sum(), leaves))
    for kept, recomputed in zip(*grads, strict=True):
        assert torch.equal(kept, recomputed)


def test_gradcheck():
    _, options, leaves = problem(Case(batch=1, tokens=4, heads=1, dim=2, value_dim=2, chunk_size=2))

    def run(q, k, v, first, second, step_size, momentum, forget):
        return windeye.associative_memory(
            q, k, v, [first, second], **options | {"step_size": step_size, "momentum": momentum, "forget": forget}
        )

    assert torch.autograd.gradcheck(run, leaves)


def test_coefficients_are_the_published_closed_forms():
    """beta, f, N and G of a chunk as products and sums of gates."""
    keep, eta, theta = torch.rand(3, 6, dtype=torch.float64)
    found = coefficients(keep, eta, theta)
    for i in range(6):
        assert found.kept[i] == pytest.approx(keep[: i + 1].prod().item())
        f = sum(keep[r + 1 : i + 1].prod() * eta[: r + 1].prod() for r in range(i + 1))
        assert found.carried[i] == pytest.approx(f.item())
        for j in range(6):
            g = sum(keep[r + 1 : i + 1].prod() * theta[j] * eta[j + 1 : r + 1].prod() for r in range(j, i + 1))
            assert found.mask[i, j] == pytest.approx(float(g))
    assert found.momentum == pytest.approx(eta.prod().item())
    assert found.last[2] == pytest.approx((theta[2] * eta[3:].prod()).item())


# --- identities ---


def test_without_steps_the_first_weights_decay():
    (q, k, v, weights), options, _ = problem(Case(depth=1, gates="forget"))
    out = windeye.associative_memory(
        q, k, v, weights, **options | {"step_size": torch.zeros_like(options["step_size"])}
    )
    kept = (1 - options["forget"]).cumprod(1)[..., None]
    torch.testing.assert_close(out, kept * torch.einsum("bnhd,hde->bnhe", q, weights[0]), **EXACT)


def test_forgetting_everything_leaves_the_last_step():
    (q, k, v, weights), options, _ = problem(Case(tokens=4))
    forget = options["forget"].detach().clone()
    forget[:, 3] = 1
    _, state = windeye.associative_memory(q, k, v, weights, **options | {"forget": forget}, return_state=True)
    torch.testing.assert_close(state.weights, state.momentum, **EXACT)


def test_one_layer_token_by_token_is_the_delta_rule():
    (q, k, v, weights), options, _ = problem(Case(depth=1, gates="none", chunk_size=1))
    out = windeye.associative_memory(q, k, v, weights, **options)
    matrix = weights[0].expand(2, *weights[0].shape)
    for t in range(7):
        error = v[:, t] - torch.einsum("bhd,bhde->bhe", k[:, t], matrix)
        matrix = matrix + options["step_size"][:, t, :, None, None] * k[:, t, :, :, None] * error[:, :, None]
        torch.testing.assert_close(out[:, t], torch.einsum("bhd,bhde->bhe", q[:, t], matrix), **EXACT)


def test_predicting_with_decayed_weights_is_the_gated_delta_rule():
    (q, k, v, weights), options, _ = problem(Case(depth=1, gates="forget", chunk_size=1))
    options |= {"predict_decayed": True}
    out = windeye.associative_memory(q, k, v, weights, **options)
    published = windeye.associative_memory(q, k, v, weights, **options | {"predict_decayed": False})
    matrix = weights[0].expand(2, *weights[0].shape)
    for t in range(7):
        matrix = (1 - options["forget"][:, t, :, None, None]) * matrix
        error = v[:, t] - torch.einsum("bhd,bhde->bhe", k[:, t], matrix)
        matrix = matrix + options["step_size"][:, t, :, None, None] * k[:, t, :, :, None] * error[:, :, None]
        torch.testing.assert_close(out[:, t], torch.einsum("bhd,bhde->bhe", q[:, t], matrix), **EXACT)
    assert (out - published).abs().max() > 1e-3


def test_one_chunk_from_zero_without_momentum_is_linear_attention():
    (q, k, v, _), options, _ = problem(Case(depth=1, gates="forget", chunk_size=50))
    zero = [torch.zeros(2, 3, 4, dtype=torch.float64)]
    step = options["step_size"][..., None]
    expected = windeye.linear_attention(q, k, step * v, log_decay=(1 - options["forget"]).log())
    torch.testing.assert_close(windeye.associative_memory(q, k, v, zero, **options), expected, **EXACT)


@pytest.mark.parametrize("depth", [1, 2])
def test_what_repeats_is_learned(depth):
    generator = torch.Generator().manual_seed(0)
    key, value = torch.nn.functional.normalize(torch.randn(2, 8, generator=generator), dim=-1)
    widths = [8, *[32] * (depth - 1), 8]
    weights = [torch.randn(1, i, o, generator=generator) * i**-0.5 for i, o in pairwise(widths)]
    k, v = (t.expand(1, 600, 1, 8) for t in (key, value))
    out = windeye.associative_memory(k, k, v, weights, step_size=torch.full((1, 600, 1), 0.1), chunk_size=4)
    assert (out[0, -1, 0] - value).norm() < 1e-3


def test_recall_reads_what_the_memory_holds():
    arguments, options, _ = problem(Case(residual=True))
    _, state = windeye.associative_memory(*arguments, **options, return_state=True)
    gain = options["residual_gain"]
    query = torch.randn(2, 3, 2, 3, dtype=torch.float64)
    out = associative_recall(query, arguments[3], state, residual_gain=gain)
    # The last query of the sequence is read after its own token, when the state is what it is now.
    same = associative_recall(arguments[0][:, -1:], arguments[3], state, residual_gain=gain)
    whole = windeye.associative_memory(*arguments, **options)
    torch.testing.assert_close(same, whole[:, -1:], **EXACT)
    assert out.shape == (2, 3, 2, 3)


# --- types, stability, bad input ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_narrow_inputs_are_computed_wide(dtype):
    case = Case(tokens=40, dim=8, value_dim=8, chunk_size=16, reduction="mean")
    arguments, options, _ = problem(case, dtype=dtype)
    wide_arguments = [t.double() for t in arguments[:3]] + [[w.double() for w in arguments[3]]]
    wide_options = {n: t.double() if isinstance(t, torch.Tensor) else t for n, t in options.items()}
    out, state = windeye.associative_memory(*arguments, **options, return_state=True)
    expected = windeye.associative_memory(*wide_arguments, **wide_options)
    assert out.dtype == dtype
    assert state.weights.dtype == torch.float32
    error = (out.double() - expected).square().mean().sqrt() / expected.square().mean().sqrt()
    assert error < {torch.float32: 1e-5, torch.bfloat16: 5e-3, torch.float16: 1e-3}[dtype]


def test_steps_that_are_too_large_are_an_error_not_nan():
    """Repeated keys: the published bound for stale gradients; the mean over chunks stays finite at the same steps."""
    key = torch.nn.functional.normalize(torch.ones(1, 4096, 1, 8), dim=-1)
    value = key.flip(1)
    zero = [torch.zeros(1, 8, 8)]
    options = {"step_size": torch.full((1, 4096, 1), 0.9), "chunk_size": 64}
    with pytest.raises(MemoryDiverged, match=r"memory of sequence 0, head 0 is no longer finite.*Lower step_size"):
        windeye.associative_memory(key, key, value, zero, **options)
    out = windeye.associative_memory(key, key, value, zero, **options, reduction="mean")
    assert (out[0, -1] - value[0, -1]).norm() < 1e-2


def test_the_bound_of_stability_is_the_documented_one():
    key = torch.nn.functional.normalize(torch.ones(1, 2048, 1, 4), dim=-1).double()
    for eta, bound in ((0.0, 2 / 64), (0.9, 0.0047)):
        last = {}
        for share in (0.8, 1.1):
            gates = {"step_size": torch.full((1, 2048, 1), share * bound), "momentum": torch.full((1, 2048, 1), eta)}
            weights = [torch.ones(1, 4, 4, dtype=torch.float64)]
            out = windeye.associative_memory(key, key, 0 * key, weights, **{n: g.double() for n, g in gates.items()})
            last[share] = out[0, -1].abs().max()
        assert last[0.8] < 1e-2 < 1 < last[1.1]


def test_wrong_calls_are_refused():
    (q, k, v, weights), options, _ = problem(Case())
    step = options["step_size"]

    def call(q=q, k=k, v=v, weights=weights, step_size=step, **more):
        return windeye.associative_memory(q, k, v, weights, step_size=step_size, **more)

    _, state = call(return_state=True)
    few = state._replace(weights=state.weights[..., 1:])
    narrow = state._replace(anchor=state.anchor.float())
    wrong = [
        (ValueError, r"query must be \[batch, \*grid", {"q": q[0], "k": k[0], "v": v[0]}),
        (ValueError, r"query must be \[batch, tokens, heads, dim\]", {"q": q[None], "k": k[None], "v": v[None]}),
        (ValueError, r"key and value must be \[batch 2, tokens 7, heads 2", {"k": k[:, 1:], "v": v[:, 1:]}),
        (TypeError, r"weights must be a sequence of tensors", {"weights": weights[0]}),
        (ValueError, r"weights must have at least one layer", {"weights": []}),
        (ValueError, r"weights\[0\] must be \[heads 2, inner 3, outer\]", {"weights": [weights[0][:1], weights[1]]}),
        (ValueError, r"weights\[1\] must be .* value_dim 4\]", {"weights": [weights[0], weights[1][..., :2]]}),
        (ValueError, r"step_size must be .* got shape \(2, 7\)", {"step_size": step[..., 0]}),
        (ValueError, r"forget must be \[batch 2", {"forget": step[:1]}),
        (ValueError, r"chunk_size must be at least 1, got 0", {"chunk_size": 0}),
        (TypeError, r"chunk_size must be an integer, got 2.0", {"chunk_size": 2.0}),
        (ValueError, r"activation must be one of gelu, silu, relu, tanh, got 'swish'", {"activation": "swish"}),
        (ValueError, r"reduction must be one of sum, mean, got 'max'", {"reduction": "max"}),
        (ValueError, r"loss_factor must be a finite number above 0, got 0", {"loss_factor": 0}),
        (ValueError, r"max_grad_norm must be a finite number above 0, got inf", {"max_grad_norm": float("inf")}),
        (ValueError, r"residual_gain must be \[heads 2, dim 3\]", {"residual_gain": torch.zeros(3)}),
        (ValueError, r"values as wide as keys, got 4 and 3", {"residual_gain": torch.zeros(2, 3)}),
        (ValueError, r"lengths must be \[batch 2\]", {"lengths": torch.tensor([3])}),
        (ValueError, r"initial_state.weights must be \[batch 2, heads 2, numbers 35\]", {"initial_state": few}),
        (TypeError, r"initial_state.anchor must be torch.float64", {"initial_state": narrow}),
        (ValueError, r"initial_state.place must be in \[0, chunk_size 4\)", {"initial_state": state, "chunk_size": 4}),
    ]
    for error, match, arguments in wrong:
        with pytest.raises(error, match=match):
            call(**arguments)


def test_empty_sequences_pass_through():
    (q, k, v, weights), options, _ = problem(Case())
    _, state = windeye.associative_memory(q, k, v, weights, **options, return_state=True)
    empty = {n: options[n][:, :0] for n in ("step_size", "momentum", "forget")}
    out, after = windeye.associative_memory(
        q[:, :0], k[:, :0], v[:, :0], weights, **options | empty, initial_state=state, return_state=True
    )
    assert out.shape == (2, 0, 2, 4)
    assert after is state
