"""Decoders under torch's own tools: one compiled graph with states and padding, half types, checked signatures."""

import beartype
import pytest
import torch
from jaxtyping import jaxtyped

from models.test_decoder import MODELS, VOCAB, every_model, tokens, wide
from models.test_mixers import DIM, SPECS
from windeye.models import DecoderConfig, DecoderLM, DynamicMaskSpec, based, generate, tnl, transformer

COMPILED = {
    "tnl": lambda: tnl(2, 16, 2, 24, vocab_size=VOCAB),
    "based": lambda: based(3, 16, 2, (1,), (2,), feature_dim=4, window=4, vocab_size=VOCAB),
    "transformer": lambda: transformer(1, 16, 4, vocab_size=VOCAB, kv_heads=2),
    "doge": lambda: DecoderLM(
        DecoderConfig(VOCAB, 16, (DynamicMaskSpec(keep=5, kv_heads=2, a_std=1.0),), glu_dim=24, residual_scale=True)
    ),
    "all": MODELS["all"],
}
"""Every kind of layer once: the compiler takes as long for each further one."""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("make", COMPILED.values(), ids=COMPILED)
def test_it_compiles_into_one_graph(make):
    torch.compiler.reset()
    model = make()
    x, other = tokens()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    logits, state = compiled(x, return_state=True)
    plain, expected = model(x, return_state=True)
    torch.testing.assert_close(logits, plain)
    torch.testing.assert_close(compiled(other, state=state.detach()), model(other, state=expected))
    padding = torch.arange(13) < torch.tensor([[4], [0], [12]])
    torch.testing.assert_close(compiled(x, padding=padding), model(x, padding=padding))
    ours, theirs = (torch.autograd.grad(out.square().sum(), list(model.parameters())) for out in (logits, plain))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


@every_model
def test_in_bfloat16_it_decodes_close_to_what_it_computes_in_one_pass(make):
    model = make().bfloat16()
    x, other = tokens()
    logits, state = model(x, return_state=True)
    assert logits.dtype == torch.bfloat16
    whole = model(torch.cat((x, other), dim=1))[:, 13:]
    error = (model(other, state=state) - whole).float().square().mean().sqrt() / whole.float().square().mean().sqrt()
    assert error < 0.02
    assert generate(model, x, 4).shape == (3, 4)


@every_model
def test_training_under_autocast_follows_single_precision(make):
    model = make()
    x, other = tokens()
    grads = []
    for enabled in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = torch.nn.functional.cross_entropy(model(x).flatten(0, 1), other.flatten())
        grads.append(torch.autograd.grad(loss, list(model.parameters())))
    narrow, full = (torch.cat([g.flatten() for g in part]) for part in grads)
    assert (narrow - full).norm() < 0.05 * full.norm()


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_shapes_are_those_of_the_signatures(spec):
    layer = spec.build(DIM, 0, 2)
    checked = jaxtyped(typechecker=beartype.beartype)(layer.forward)
    mixed = jaxtyped(typechecker=beartype.beartype)(layer.mix)
    strided = torch.randn(7, 2, 2 * DIM)[..., ::2].transpose(0, 1)
    out, state = checked(strided, lengths=torch.tensor([3, 7]), return_state=True)
    torch.testing.assert_close(out, layer(strided.contiguous(), lengths=torch.tensor([3, 7])))
    mixed(strided, None, state)
    bounds = torch.tensor([0, 3, 3, 7], dtype=torch.int32)
    assert checked(strided[1:], cu_seqlens=bounds, return_state=True)[1].seen.tolist() == [3, 0, 4]
    for empty in (strided[:0], strided[:, :0]):
        assert layer(empty).shape == empty.shape


def test_shapes_of_the_model_are_those_of_its_signature():
    for make in MODELS.values():
        model = wide(make)
        checked = jaxtyped(typechecker=beartype.beartype)(model.forward)
        assert checked(tokens()[0], padding=torch.zeros(3, 13, dtype=torch.bool)).shape == (3, 13, VOCAB)
        assert checked(tokens()[0][:1], cu_seqlens=torch.tensor([0, 5, 13])).shape == (1, 13, VOCAB)
    typed = jaxtyped(typechecker=beartype.beartype)(generate)
    assert typed(model, tokens()[0], 2, temperature=1.0, top_p=0.9, seed=1).shape == (3, 2)
