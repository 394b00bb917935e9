"""The layers of Titans equal what their equations say, written out for one sequence, token by token."""

import pytest
import torch
import torch.nn.functional as F

from models.test_mixers import DIM
from nn.mixer_kit import same
from oracles.associative import memory as loop
from windeye.models import DecoderConfig, DecoderLM, TitansSpec
from windeye.nn import CausalAttention, MemoryAsContext, MemoryAsGate, MemoryAsLayer, NeuralMemory
from windeye.nn.rotary import rotate
from windeye.ops import MemoryDiverged


def shaken(layer):
    """In float64, with parameters away from their special initial values."""
    layer = layer.double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return layer


def rms(x, norm):
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * norm.weight


def memory_loop(layer, x):
    """`NeuralMemory` over [1, n, dim] without persistent tokens, by the loop over tokens; also the last weights."""
    n, inner = x.shape[1], layer.out_proj.in_features
    qkv = x @ layer.qkv_proj.weight.T
    if layer.conv is not None:
        k = layer.kernel_size
        padded = torch.cat((qkv.new_zeros(1, k - 1, 3 * inner), qkv), dim=1)
        qkv = torch.stack([(padded[:, t : t + k] * layer.conv.weight[:, 0].T).sum(1) for t in range(n)], dim=1)
    q, k, v = (t.unflatten(-1, (layer.heads, -1)) for t in F.silu(qkv).chunk(3, dim=-1))
    q, k = q / q.norm(dim=-1, keepdim=True), k / k.norm(dim=-1, keepdim=True)
    step, eta, alpha = (x @ layer.rates_proj.weight.T + layer.rates_bias).sigmoid().chunk(3, dim=-1)
    out, after = loop(
        q, k, v, list(layer.weights), step_size=layer.max_step * step * (1 - eta), momentum=eta, forget=alpha,
        chunk_size=layer.chunk_size,
    )  # fmt: skip
    return rms(out, layer.norm).flatten(-2) * F.silu(x @ layer.gate_proj.weight.T) @ layer.out_proj.weight.T, after


def dense(attention, queries, keys, mask, where_q, where_k):
    """Softmax attention of rows of ``queries`` over ``keys`` [tokens, dim] under an explicit mask."""
    heads, dim = attention.heads, attention.head_dim

    def split(x, where, part):
        projected = (x @ attention.qkv_proj.weight.T).chunk(3, dim=-1)[part].unflatten(-1, (heads, dim))
        return projected if part == 2 else rotate(projected[None], where[None], attention.rotary_base)[0]

    q, k, v = split(queries, where_q, 0), split(keys, where_k, 1), split(keys, where_k, 2)
    logits = torch.einsum("qhd,khd->hqk", q, k) * dim**-0.5
    weights = logits.masked_fill(~mask, -torch.inf).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, v).flatten(-2) @ attention.out_proj.weight.T


def sliding_with_prefix(tokens, prefix, window):
    """[prefix + tokens] square: causal, a window, and the prefix for all."""
    i, j = torch.meshgrid(torch.arange(prefix + tokens), torch.arange(prefix + tokens), indexing="ij")
    return (j <= i) & ((i - j < window) | (j < prefix))


@pytest.fixture
def x():
    return torch.randn(1, 11, DIM, dtype=torch.float64)


@pytest.mark.parametrize("kernel_size", [1, 4])
def test_the_memory_is_its_equations(x, kernel_size):
    layer = shaken(NeuralMemory(DIM, 2, chunk_size=4, kernel_size=kernel_size, max_step=0.5))
    same(layer(x), memory_loop(layer, x)[0])


def test_persistent_tokens_are_read_first_and_dropped(x):
    layer = shaken(NeuralMemory(DIM, 2, chunk_size=4, max_step=0.5, persistent=3))
    joined = torch.cat((layer.persistent[None], x), dim=1)
    same(layer(x), memory_loop(layer, joined)[0][:, 3:])


def test_memory_as_gate_is_its_equations(x):
    layer = shaken(MemoryAsGate(CausalAttention(DIM, 4, window=3), NeuralMemory(DIM, 2, chunk_size=4), persistent=2))
    joined = torch.cat((layer.persistent, x[0]))
    y = dense(layer.attention, joined, joined, sliding_with_prefix(11, 2, 3), torch.arange(13), torch.arange(13))
    m, _ = memory_loop(layer.memory, joined[None])
    gate = F.silu(rms(m[0], layer.memory_norm))
    same(layer(x)[0], (rms(y, layer.attention_norm) * gate)[2:])
    layer.activation = "sigmoid"
    same(layer(x)[0], (rms(y, layer.attention_norm) * rms(m[0], layer.memory_norm).sigmoid())[2:])


@pytest.mark.parametrize("residual", [True, False])
def test_memory_as_layer_is_its_equations(x, residual):
    attention, memory = CausalAttention(DIM, 4, window=3), NeuralMemory(DIM, 2, chunk_size=4)
    layer = shaken(MemoryAsLayer(attention, memory, persistent=2, residual=residual))
    joined = torch.cat((layer.persistent, x[0]))
    said = memory_loop(layer.memory, joined[None])[0][0]
    heard = rms(joined + said, layer.norm) if residual else said
    y = dense(layer.attention, heard, heard, sliding_with_prefix(11, 2, 3), torch.arange(13), torch.arange(13))
    same(layer(x)[0], (said + y if residual else y)[2:])


@pytest.mark.parametrize(("whole_recall", "residual"), [(False, True), (True, True), (False, False)])
def test_memory_as_context_is_its_equations(x, whole_recall, residual):
    segment, prefix = 4, 2
    layer = shaken(
        MemoryAsContext(
            CausalAttention(DIM, 4),
            NeuralMemory(DIM, 2, chunk_size=3),
            segment,
            prefix,
            residual=residual,
            whole_recall=whole_recall,
        )
    )
    ys, outs = [], []
    weights = list(layer.memory.weights)
    for begin in range(0, 11, segment):
        s = x[0, begin : begin + segment]
        # Recalled with the weights that all former segments left.
        memory = layer.memory
        q = F.silu(s @ memory.qkv_proj.weight[:DIM].T).unflatten(-1, (2, -1))
        q = q / q.norm(dim=-1, keepdim=True)
        read = torch.stack([F.gelu(q[:, h] @ weights[0][h]) @ weights[1][h] for h in range(2)], dim=1)
        h = rms(read, memory.norm).flatten(-2) * F.silu(s @ memory.gate_proj.weight.T) @ memory.out_proj.weight.T
        # Attention over [p; h; s]; the positions are those of whole segments.
        n = s.shape[0]
        keys = torch.cat((layer.persistent, h, s))
        where = torch.cat((torch.arange(prefix), prefix + torch.arange(n), prefix + segment + torch.arange(n)))
        causal = torch.ones(n, n, dtype=torch.bool).tril()
        recalled = torch.ones(n, n, dtype=torch.bool) if whole_recall else causal
        mask = torch.cat((torch.ones(n, prefix, dtype=torch.bool), recalled, causal), dim=1)
        y = dense(layer.attention, s, keys, mask, where[-n:], where)
        ys.append(rms(s + y if residual else y, layer.written_norm))
        # The memory reads all that was written so far, in one sequence.
        m, after = memory_loop(memory, torch.cat(ys)[None])
        outs.append(rms(y, layer.attention_norm) * F.silu(rms(m[0, begin:], layer.memory_norm)))
        weights = [torch.stack([after[0, head][0][layer_] for head in range(2)]) for layer_ in range(2)]
    same(layer(x)[0], torch.cat(outs))


def test_whole_recall_leaks_within_a_segment_and_says_so(x):
    layer = shaken(
        MemoryAsContext(CausalAttention(DIM, 4), NeuralMemory(DIM, 2), segment=4, whole_recall=True)
    )  # fmt: skip
    other = torch.cat((x[:, :3], torch.randn_like(x[:, 3:])), dim=1)
    out, changed = layer(x), layer(other)
    assert (out[:, :3] - changed[:, :3]).abs().max() > 1e-6
    _, state = layer(x[:, :8], return_state=True)
    same(layer(x[:, 8:], state=state), out[:, 8:])
    _, state = layer(x[:, :7], return_state=True)
    with pytest.raises(ValueError, match=r"a segment of 4 tokens .* cannot go on after \[7\] tokens"):
        layer(x[:, 7:], state=state)


def test_reading_without_writing_leaves_the_memory_as_it_is(x):
    layer = shaken(NeuralMemory(DIM, 2, chunk_size=4, max_step=0.5))
    _, state = layer(x, return_state=True)
    layer.writing = False
    first, after = layer(x, state=state, return_state=True)
    assert torch.equal(after.layers[1].weights, state.layers[1].weights)
    assert after.seen.tolist() == [22]
    # Without writing, tokens meet only within the reach of the convolution.
    changed, _ = layer(torch.cat((torch.randn_like(x[:, :1]), x[:, 1:]), dim=1), state=state, return_state=True)
    same(changed[:, 4:], first[:, 4:])


def test_evaluation_writes_too(x):
    layer = shaken(NeuralMemory(DIM, 2, max_step=0.5)).eval()
    _, state = layer(x, return_state=True)
    assert (state.layers[1].weights - layer.begin(None, 1)[1].layers[1].weights).abs().max() > 1e-3


def test_a_diverged_memory_names_sequence_head_and_layer():
    spec = TitansSpec("lmm", heads=2, max_step=1e4, chunk_size=64)
    model = DecoderLM(DecoderConfig(vocab_size=8, dim=16, mixers=(TitansSpec("lmm", heads=2), spec)))
    with torch.no_grad():
        model.blocks[1].mixer.rates_bias[:2] = 10  # steps start small; here they are as large as they can get
    with pytest.raises(MemoryDiverged, match=r"head \d is no longer finite") as caught:
        model(torch.zeros(1, 4096, dtype=torch.int64))
    assert caught.value.__notes__ == ["in layer 1 of 2"]


def test_wrong_blocks_are_refused():
    attention, memory = CausalAttention(DIM, 4), NeuralMemory(DIM, 2)
    own = NeuralMemory(DIM, 2, persistent=1)
    wrong = [
        (r"attention has dim 16 but memory has 8", lambda: MemoryAsGate(attention, NeuralMemory(8, 2))),
        (r"must not have persistent tokens of its own", lambda: MemoryAsLayer(attention, own)),
        (r"persistent must be a number of tokens, at least 0, got -1", lambda: MemoryAsGate(attention, memory, -1)),
        (r"persistent must be a number of tokens, at least 0, got 1.5", lambda: NeuralMemory(DIM, 2, persistent=1.5)),
        (r"needs no window, got window 8", lambda: MemoryAsContext(CausalAttention(DIM, 4, 8), memory, 4)),
        (r"segment must be at least 1, got 0", lambda: MemoryAsContext(attention, memory, 0)),
        (r"dim 16 must be a multiple of heads 3", lambda: NeuralMemory(DIM, 3)),
        (r"depth must be at least 1, got 0", lambda: NeuralMemory(DIM, 2, depth=0)),
        (r"max_step must be a finite number above 0, got -1", lambda: NeuralMemory(DIM, 2, max_step=-1)),
        (r"variant must be one of lmm, mac, mag, mal, got 'mam'", lambda: TitansSpec("mam").build(DIM, 0, 1)),
    ]  # fmt: skip
    for match, build in wrong:
        with pytest.raises(ValueError, match=match):
            build()
