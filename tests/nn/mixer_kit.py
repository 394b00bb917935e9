"""The contract of sequence mixers as checks, for whatever maps [batch, n, ...] to [batch, n, ...] with a state.

Each takes a call ``run(x, padding=..., lengths=..., state=..., return_state=...)`` and inputs ``x``: a layer with its
vectors, or a model with its tokens. ``other`` are inputs of the same shape with other contents.
"""

from itertools import accumulate, pairwise

import torch

EXACT = {"rtol": 1e-9, "atol": 1e-9}


def same(actual, expected):
    torch.testing.assert_close(actual, expected, **EXACT)


def same_state(actual, expected):
    """Equal in what it holds, whatever stands in hidden places."""
    if hasattr(actual, "layers"):
        for ours, theirs in zip(actual.layers, expected.layers, strict=True):
            same_state(ours, theirs)
        return
    assert torch.equal(actual.seen, expected.seen)
    for name, ours in actual.tensors().items():
        theirs = expected.tensors()[name]
        if name in ("key", "value", "score", "position"):
            for row, seen in enumerate(actual.seen.tolist()):
                held = min(seen, ours.shape[1], theirs.shape[1])
                same(ours[row, ours.shape[1] - held :], theirs[row, theirs.shape[1] - held :])
        else:
            same(ours, theirs)


def assert_causal(run, x, other):
    """Changing what comes later changes nothing that came before."""
    whole = run(x)
    for t in (0, 1, x.shape[1] // 2, x.shape[1] - 1):
        same(run(torch.cat((x[:, :t], other[:, t:]), dim=1))[:, :t], whole[:, :t])


def assert_split_invariant(run, x):
    """Cut anywhere, with the state carried over, it is the whole; the given state is left as it was."""
    whole, final = run(x, return_state=True)
    for t in (0, 1, 2, x.shape[1] // 2, x.shape[1] - 1, x.shape[1]):
        head, state = run(x[:, :t], return_state=True)
        copy = state.select(torch.arange(x.shape[0]))
        tail, after = run(x[:, t:], state=state, return_state=True)
        same(torch.cat((head, tail), dim=1), whole)
        same_state(after, final)
        same_state(state, copy)


def assert_steps_are_the_whole(run, x, prefill):
    """A pass over the beginning and then a step per token equals one pass."""
    whole, final = run(x, return_state=True)
    out, state = run(x[:, :prefill], return_state=True)
    outs = [out]
    for t in range(prefill, x.shape[1]):
        out, state = run(x[:, t : t + 1], state=state, return_state=True)
        state.check_integrity()
        outs.append(out)
    same(torch.cat(outs, dim=1), whole)
    same_state(state, final)


def assert_padding_invariant(run, x, other):
    """Each sequence of a padded batch equals itself alone, in outputs and state, and so does what follows."""
    batch, n = x.shape[:2]
    lengths = torch.tensor([n, n // 2, 1, 0])[:batch]
    here = torch.arange(n)
    gaps = torch.stack([torch.arange(n) % 3 == row for row in range(batch)])
    sides = {
        "left": here < n - lengths[:, None],
        "right": here >= lengths[:, None],
        "gaps": gaps,
    }
    for padding in sides.values():
        hidden = padding.reshape(batch, n, *[1] * (x.dim() - 2)).expand_as(x)
        out, state = run(torch.where(hidden, other, x), padding=padding, return_state=True)
        state.check_integrity()
        assert (out[padding] == 0).all()
        more, after = run(other, state=state, padding=sides["left"], return_state=True)
        for row in range(batch):
            tokens = x[row : row + 1, ~padding[row]]
            alone, own = run(tokens, return_state=True)
            same(out[row : row + 1, ~padding[row]], alone)
            same_state(state.select(torch.tensor([row])), own)
            then, own = run(other[row : row + 1, ~sides["left"][row]], state=own, return_state=True)
            same(more[row : row + 1, ~sides["left"][row]], then)
            same_state(after.select(torch.tensor([row])), own)


def assert_lengths_are_padding_on_the_right(run, x, other):
    """``lengths`` and ``padding`` say the same thing."""
    n = x.shape[1]
    lengths = torch.tensor([n, n // 2, 1, 0])[: x.shape[0]]
    padding = torch.arange(n) >= lengths[:, None]
    out, state = run(x, lengths=lengths, return_state=True)
    expected, padded = run(x, padding=padding, return_state=True)
    same(out, expected)
    same_state(state, padded)
    more, _ = run(other, state=state, return_state=True)
    same(more, run(other, state=padded))


def assert_packed_documents_are_alone(run, x, other, leaves):
    """Documents packed into one row, wherever they end, are a loop over documents: in outputs, states, gradients, and
    in what follows."""
    n = x.shape[1]
    nothing, state = run(x[:1, :0], cu_seqlens=torch.tensor([0, 0, 0]), return_state=True)
    assert nothing.shape[:2] == (1, 0)
    assert state.seen.tolist() == [0, 0]
    for ends in [(n,), (0, 1, n), (n // 2, n // 2, n - 1, n, n), tuple(range(1, n + 1))]:
        bounds = [0, *ends]
        spans = [slice(a, b) for a, b in pairwise(bounds)]
        cu_seqlens = torch.tensor(bounds, dtype=torch.int32)
        out, state = run(x[:1], cu_seqlens=cu_seqlens, return_state=True)
        state.check_integrity()
        alone = [run(x[:1, span], return_state=True) for span in spans]
        same(out, torch.cat([document for document, _ in alone], dim=1))
        for row, (_, own) in enumerate(alone):
            same_state(state.select(torch.tensor([row])), own)
        # The documents go on, the last one longest now.
        lengths = [n // len(spans)] * (len(spans) - 1)
        bounds = [0, *accumulate([*lengths, n - sum(lengths)])]
        more, after = run(other[:1], cu_seqlens=torch.tensor(bounds), state=state, return_state=True)
        then = [
            run(other[:1, slice(a, b)], state=own, return_state=True)
            for (a, b), (_, own) in zip(pairwise(bounds), alone, strict=True)
        ]
        same(more, torch.cat([document for document, _ in then], dim=1))
        for row, (_, own) in enumerate(then):
            same_state(after.select(torch.tensor([row])), own)
        if len(spans) <= 5:
            cotangent = torch.randn_like(more)
            one_by_one = torch.cat([document for document, _ in then], dim=1)
            ours, theirs = (torch.autograd.grad((o * cotangent).sum(), leaves) for o in (more, one_by_one))
            for a, b in zip(ours, theirs, strict=True):
                same(a, b)


def assert_rows_are_independent(run, x, other):
    """Beams: rows of a state can be chosen, repeated and reordered between steps."""
    _, state = run(x, return_state=True)
    index = torch.tensor([2, 0, 0, 1])
    same(run(other[:1].expand(4, *other.shape[1:]), state=state.select(index)), torch.cat(
        [run(other[:1], state=run(x[i : i + 1], return_state=True)[1]) for i in index.tolist()]
    ))  # fmt: skip
    twice = run(torch.cat((other[:1], other[1:2])), state=run(x[:1], return_state=True)[1].repeat(2))
    same(twice[1:], run(other[1:2], state=run(x[:1], return_state=True)[1]))


def assert_state_survives_files(run, x, other, path):
    from windeye.memory import load_state, save_state

    _, state = run(x, return_state=True)
    save_state(state, path)
    assert torch.equal(run(other, state=load_state(path)), run(other, state=state))


def assert_bytes_are_as_promised(run, x, state_bytes):
    """What a state takes is its formula; the counters of tokens come on top."""

    def counters(state):
        if hasattr(state, "layers"):
            return sum(counters(layer) for layer in state.layers)
        return state.seen.numel() * state.seen.element_size()

    for n in (1, 2, x.shape[1]):
        _, state = run(x[:1, :n], return_state=True)
        assert state.nbytes - counters(state) == state_bytes(n)


def assert_gradients_cross_the_cut(run, x, leaves):
    """Carried states keep the graph: gradients of two pieces are those of the whole."""
    cotangent = torch.randn_like(run(x))
    whole = torch.autograd.grad((run(x) * cotangent).sum(), leaves)
    t = x.shape[1] // 2
    head, state = run(x[:, :t], return_state=True)
    pieces = torch.cat((head, run(x[:, t:], state=state)), dim=1)
    for ours, theirs in zip(torch.autograd.grad((pieces * cotangent).sum(), leaves), whole, strict=True):
        same(ours, theirs)
