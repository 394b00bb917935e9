"""States of tensors: rows are chosen, moved, stored; what cannot be undone is refused."""

import copy
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from windeye.memory import (
    ConvolutionState,
    HybridState,
    KeyValueState,
    RecurrentState,
    State,
    TensorState,
    load_state,
    save_state,
)
from windeye.memory.tensors import latest


def key_value(batch=3, n=5, window=None, lengths=None):
    k, v = torch.randn(2, batch, n, 2, 4).unbind(0)
    return KeyValueState.empty(k, v, window).append(k, v, lengths)


def recurrent(batch=3):
    return RecurrentState(torch.arange(batch), torch.randn(batch, 2, 4, 4))


def convolution(batch=3):
    x = torch.randn(batch, 5, 6)
    return ConvolutionState.empty(x, 3).append(x)


STATES = {
    "all keys": key_value,
    "window": lambda: key_value(window=3),
    "recurrent": recurrent,
    "convolution": convolution,
    "hybrid": lambda: HybridState([key_value(), convolution(), HybridState([key_value(window=4)])]),
}
every_kind = pytest.mark.parametrize("make", STATES.values(), ids=STATES)


def leaves(state):
    if isinstance(state, HybridState):
        return [tensor for layer in state.layers for tensor in leaves(layer)]
    return list(state.tensors().values())


def equal(a, b):
    return len(leaves(a)) == len(leaves(b)) and all(
        torch.equal(x, y) for x, y in zip(leaves(a), leaves(b), strict=True)
    )


@every_kind
def test_it_answers_to_the_protocol_and_counts_its_bytes(make):
    state = make()
    assert isinstance(state, State)
    assert state.nbytes == sum(t.numel() * t.element_size() for t in leaves(state))
    state.check_integrity()


@every_kind
def test_choosing_repeating_and_reordering_act_on_rows(make):
    state = make()
    index = torch.tensor([2, 0, 2])
    chosen = state.select(index)
    for ours, theirs in zip(leaves(chosen), leaves(state), strict=True):
        assert torch.equal(ours, theirs[index])
        assert ours.data_ptr() != theirs.data_ptr() or ours.numel() == 0
    assert equal(state.repeat(2), state.select(torch.tensor([0, 0, 1, 1, 2, 2])))
    state.reorder(index)
    assert equal(state, chosen)


@every_kind
def test_reordering_needs_every_place(make):
    with pytest.raises(ValueError, match=r"index must name 3 sequences, got \(2,\)"):
        make().reorder(torch.tensor([0, 1]))


@every_kind
def test_files_give_back_every_bit(make, tmp_path):
    state = make()
    save_state(state, tmp_path / "state.safetensors")
    again = load_state(tmp_path / "state.safetensors")
    assert type(again) is type(state)
    assert equal(again, state)
    if isinstance(state, KeyValueState):
        assert again.window == state.window


def test_a_file_of_something_else_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="holds no state of windeye"):
        load_state(tmp_path / "x.safetensors")


def test_only_states_of_tensors_have_a_file_form(tmp_path):
    with pytest.raises(TypeError, match="int is not a state of tensors"):
        save_state(HybridState([3]), tmp_path / "x.safetensors")


@every_kind
def test_detaching_cuts_the_graph(make):
    state = make()
    for tensor in leaves(state):
        if tensor.is_floating_point():
            tensor.requires_grad_()
    assert not any(t.requires_grad for t in leaves(state.detach()))


def test_half_precision_is_for_keys_and_inputs_but_not_for_sums():
    state = HybridState([key_value(), recurrent(), convolution()]).to(dtype=torch.bfloat16)
    keys, sums, inputs = state.layers
    assert keys.key.dtype == keys.value.dtype == inputs.inputs.dtype == torch.bfloat16
    assert sums.matrix.dtype == torch.float32
    assert keys.seen.dtype == torch.int64


@every_kind
def test_it_moves_between_devices(make):
    assert all(t.device.type == "meta" for t in leaves(make().to("meta")))


def test_cropping_all_keys_is_as_if_the_rest_had_not_been_seen():
    k, v = torch.randn(2, 3, 6, 2, 4).unbind(0)
    lengths = torch.tensor([6, 2, 4])
    state = KeyValueState.empty(k, v).append(k, v, lengths).crop(3)
    state.check_integrity()
    assert state.seen.tolist() == [3, 2, 3]
    assert state.key.shape[1] == 3
    for row, n in enumerate([3, 2, 3]):
        assert torch.equal(state.key[row, 3 - n :], k[row, :n])
        assert torch.equal(state.value[row, 3 - n :], v[row, :n])


@pytest.mark.parametrize("name", ["window", "recurrent", "convolution"])
def test_what_was_forgotten_cannot_be_cropped_back(name):
    state = STATES[name]()
    assert equal(state.crop(int(state.seen.max())), state)
    kind = type(state).__name__
    with pytest.raises(ValueError, match=f"{kind} cannot be cropped to 1 tokens"):
        state.crop(1)


def test_a_hybrid_is_cropped_if_all_its_layers_can_be():
    assert HybridState([key_value(), key_value()]).crop(2).seen.tolist() == [2, 2, 2]
    with pytest.raises(ValueError, match=re.escape("RecurrentState cannot be cropped")):
        HybridState([key_value(), recurrent()]).crop(1)


@given(st.data())
def test_a_window_keeps_the_last_tokens_of_each_row_however_they_came(data):
    """Against lists: rows of different lengths, in pieces."""
    batch, window = data.draw(st.integers(1, 3)), data.draw(st.one_of(st.none(), st.integers(1, 5)))
    rows = [[] for _ in range(batch)]
    state = KeyValueState.empty(torch.zeros(batch, 0, 1, 1), torch.zeros(batch, 0, 1, 1), window)
    for _ in range(data.draw(st.integers(0, 4))):
        n = data.draw(st.integers(0, 4))
        lengths = torch.tensor([data.draw(st.integers(0, n)) for _ in range(batch)])
        tokens = torch.randn(batch, n, 1, 1)
        state = state.append(tokens, -tokens, lengths)
        state.check_integrity()
        for row, length, own in zip(rows, lengths.tolist(), tokens, strict=True):
            row.extend(own[:length, 0, 0].tolist())
    new = torch.zeros(batch, 1, 1, 1)
    seen = state.followed_by(new, new)
    keys, values, hidden = seen.key, seen.value, seen.hidden
    assert state.seen.tolist() == [len(row) for row in rows]
    for row, key, value, absent in zip(rows, keys[..., 0, 0], values[..., 0, 0], hidden, strict=True):
        wanted = row if window is None else row[max(0, len(row) - window + 1) :]
        seen = key[~absent][:-1].tolist()
        assert seen[len(seen) - len(wanted) :] == wanted
        assert len(seen) == len(wanted)
        assert value[~absent][:-1].tolist() == [-x for x in seen]


@given(st.data())
def test_a_growing_cache_can_be_continued_from_every_state_it_ever_was(data):
    """Against lists: a tree of states, each of which still holds its own tokens at the end."""
    modes = {"no graph": torch.no_grad, "inference": torch.inference_mode, "graph": torch.enable_grad}
    drawn = data.draw(st.sampled_from((["no graph"], ["inference"], list(modes))))
    with torch.no_grad():
        first = torch.randn(2, data.draw(st.integers(0, 2)), 1, 1)
        states = [(KeyValueState.empty(first, first).append(first, -first), first)]
    for _ in range(data.draw(st.integers(1, 12))):
        state, tokens = states[data.draw(st.integers(0, len(states) - 1))]
        with modes[data.draw(st.sampled_from(drawn))]():
            new = torch.randn(2, data.draw(st.integers(0, 3)), 1, 1)
            change = data.draw(st.sampled_from(("append", "append", "append", "reorder", "copy", "crop", "read")))
            if change == "reorder":
                state, tokens = state.select(torch.tensor([0, 1])), tokens.flip(0)
                state.reorder(torch.tensor([1, 0]))
            elif change == "copy":
                state = copy.deepcopy(state)
            elif change == "crop":
                state, tokens = state.crop(2), tokens[:, :2]
            if change != "read":
                state, tokens = state.append(new, -new), torch.cat((tokens, new), dim=1)
            else:
                state.followed_by(new, new)
        states.append((state, tokens))
        for state, tokens in states:
            state.check_integrity()
            assert state.seen.tolist() == [tokens.shape[1]] * 2
            assert torch.equal(state.key, tokens)
            assert torch.equal(state.value, -tokens)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_two_continuations_of_one_state_know_nothing_of_each_other(mode):
    tokens = torch.randn(1, 5, 1, 1)
    with mode():
        trunk = KeyValueState.empty(tokens, tokens)
        for t in range(3):
            trunk = trunk.append(tokens[:, t : t + 1], tokens[:, t : t + 1])
        left = trunk.append(tokens[:, 3:4], tokens[:, 3:4])
        right = trunk.append(tokens[:, 4:], tokens[:, 4:])
    assert torch.equal(trunk.key, tokens[:, :3])
    assert torch.equal(left.value, tokens[:, :4])
    assert torch.equal(right.value, tokens[:, [0, 1, 2, 4]])


def test_growing_copies_fewer_tokens_than_twice_those_it_takes_in():
    token = torch.randn(1, 1, 2, 4)
    with torch.no_grad():
        state = KeyValueState.empty(token, token).append(token, token)
        moves, copied, before = 0, 0, state.key.data_ptr()
        for n in range(1, 1000):
            state = state.append(token, token)
            if state.key.data_ptr() != before:
                moves, copied, before = moves + 1, copied + n, state.key.data_ptr()
            assert state.key.untyped_storage().nbytes() <= 2 * state.key.nbytes
            assert state.nbytes == 2 * (n + 1) * 8 * 4 + 8
    assert moves == 9
    assert copied < 2 * 1000


def test_a_graph_over_a_growing_cache_is_never_written_over():
    key, new = torch.randn(1, 3, 1, 2), torch.randn(1, 1, 1, 2)
    with torch.no_grad():
        state = KeyValueState.empty(key, key).append(key, key).append(new, new)
    query = torch.randn(1, 4, requires_grad=True)
    seen = state.followed_by(new, new)
    out = (seen.key.flatten(1) * seen.value.flatten(1)[:, :1] * query.sum()).sum()
    with torch.no_grad():
        for _ in range(3):
            state = state.append(-new, -new)
    (grad,) = torch.autograd.grad(out, query)
    tokens = torch.cat((key, new, new), dim=1).flatten()
    torch.testing.assert_close(grad, (tokens.sum() * tokens[0]).expand(1, 4))


def test_the_window_does_not_keep_the_memory_of_what_it_dropped():
    tokens = torch.randn(1, 1000, 4)
    assert latest(tokens, 3).untyped_storage().nbytes() == 3 * 4 * 4


def test_a_broken_state_is_noticed():
    state = key_value()
    state.key = state.key[:, 1:]
    with pytest.raises(AssertionError, match="not as many keys as values"):
        state.check_integrity()
    with pytest.raises(AssertionError, match="different numbers of tokens"):
        HybridState([key_value(), recurrent()]).check_integrity()


def test_every_kind_is_known_by_its_name():
    assert TensorState.kinds["KeyValueState"] is KeyValueState
