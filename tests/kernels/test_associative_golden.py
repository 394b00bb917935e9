"""The linear memory of lucidrains/titans-pytorch as a composition of ours, outputs and gradients.

No official code of the paper exists. What that library does otherwise: the loss is a mean over features, there is one
gate per chunk, and a token reads what the chunks left that were complete one token later. Its memories with a
normalised residual keep the gain among the weights that are learned at test time, which ours does not.
"""

import torch
import torch.nn.functional as F

import windeye
from golden import load
from windeye.ops import associative_recall

CHUNK = 4


def test_the_linear_memory_of_another_library():
    _, golden = load("titans", "linear_memory_no_momentum")
    x = golden["input.x"].requires_grad_()
    names = (
        "retrieve_norm",
        "store_norm",
        "to_queries",
        "to_keys",
        "to_values",
        "to_adaptive_step.0",
        "to_decay_factor.0",
    )
    weight = {name: golden[f"weight.{name}.weight"].requires_grad_() for name in names}
    bias = {name: golden[f"weight.{name}.bias"].requires_grad_() for name in names if name.endswith(".0")}
    first = golden["weight.memory_model_parameters.0"].requires_grad_()

    stored = F.rms_norm(x, (10,), weight["store_norm"], eps=torch.finfo(torch.float64).eps)
    key, value = (F.linear(stored, weight[name])[:, :, None] for name in ("to_keys", "to_values"))
    step = F.linear(stored, weight["to_adaptive_step.0"], bias["to_adaptive_step.0"]).sigmoid()
    pooled = stored.unflatten(1, (-1, CHUNK)).mean(2)
    decay = F.linear(pooled, weight["to_decay_factor.0"], bias["to_decay_factor.0"]).sigmoid()
    # One gate per chunk, at its first token.
    forget = torch.stack((decay, *[torch.zeros_like(decay)] * (CHUNK - 1)), dim=2).flatten(1, 2)
    query = F.linear(
        F.rms_norm(x, (10,), weight["retrieve_norm"], eps=torch.finfo(torch.float64).eps), weight["to_queries"]
    )

    states = [None]
    for begin in range(0, 16, CHUNK):
        now = slice(begin, begin + CHUNK)
        _, state = windeye.associative_memory(
            key[:, now], key[:, now], value[:, now], [first], step_size=step[:, now], forget=forget[:, now],
            loss_factor=2 / 10, chunk_size=1000, initial_state=states[-1], return_state=True,
        )  # fmt: skip
        states.append(state)
    after = golden["output.weights_after_each_chunk.weights.0"][0]
    for state, expected in zip(states[1:], after[1:], strict=True):
        torch.testing.assert_close(state.weights[0, 0].view(10, 10), expected, rtol=1e-9, atol=1e-9)

    y = torch.cat(
        [associative_recall(query[:, t : t + 1, None], [first], states[(t + 1) // CHUNK])[:, :, 0] for t in range(16)],
        dim=1,
    )
    torch.testing.assert_close(y, golden["output.y"], rtol=1e-9, atol=1e-9)
    (y * golden["input.do"]).sum().backward()
    torch.testing.assert_close(x.grad, golden["grad_input.x"], rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(first.grad, golden["grad_weight.memory_model_parameters.0"], rtol=1e-8, atol=1e-9)
    for kind, tensors in (("weight", weight), ("bias", bias)):
        for name, tensor in tensors.items():
            torch.testing.assert_close(tensor.grad, golden[f"grad_weight.{name}.{kind}"], rtol=1e-8, atol=1e-9)
