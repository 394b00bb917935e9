"""Selection by score equals a sort per query; every published semantics, by name."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import windeye
from oracles.lifetimes import kept, smoothed
from windeye import Expiry, topw_expiry, topw_mask
from windeye.kernels import selection

GOLDEN = Path(__file__).parents[1] / "golden" / "dma"
LIVES = ("causal", "global", "relu")


def rows(score, *, hidden=None, lengths=None, **options):
    """The oracle for every batch entry and head."""
    masks = []
    for b, entry in enumerate(score):
        own = {"hidden": None if hidden is None else hidden[b], "length": None if lengths is None else int(lengths[b])}
        masks.append(torch.stack([kept(head, **own, **options) for head in entry]))
    return torch.stack(masks)


@st.composite
def cases(draw):
    batch, heads, keys = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 17))
    ties = draw(st.booleans())
    value = st.integers(-2, 2).map(float) if ties else st.floats(-1e3, 1e3, width=32)
    values = draw(st.lists(value, min_size=batch * heads * keys, max_size=batch * heads * keys))
    score = torch.tensor(values, dtype=draw(st.sampled_from([torch.float32, torch.float64])))
    options = {}
    if draw(st.booleans()):
        options["lengths"] = torch.tensor([draw(st.integers(0, keys)) for _ in range(batch)])
    if draw(st.booleans()):
        options["key_padding"] = torch.tensor(
            draw(st.lists(st.booleans(), min_size=batch * keys, max_size=batch * keys))
        )
        options["key_padding"] = options["key_padding"].reshape(batch, keys)
    if draw(st.booleans()):
        options["window"] = draw(st.integers(1, keys + 2))
    return score.reshape(batch, heads, keys), draw(st.integers(1, keys + 2)), options


def expected(score, w, options, **more):
    options = dict(options)
    return rows(score, w=w, hidden=options.pop("key_padding", None), **options, **more)


@pytest.mark.parametrize("name", LIVES)
@given(case=cases())
@settings(max_examples=80, deadline=None, derandomize=True)
def test_lives_are_the_sets_that_a_sort_per_query_keeps(name, case):
    score, w, options = case
    expiry = topw_expiry(score, w, selection=name, **options)
    assert expiry.dtype == torch.int32
    mask = expected(score, w, options, selection=name)
    assert torch.equal(Expiry(expiry).bind((score.shape[-1],)).mask(), mask)
    assert torch.equal(topw_mask(score, w, selection=name, **options), mask)


@given(case=cases())
@settings(max_examples=80, deadline=None, derandomize=True)
def test_selections_without_lives_are_dense_masks(case):
    score, w, options = case
    options["window"] = options.get("window", 3)
    windowed = topw_mask(score, w, selection="windowed", **options)
    assert torch.equal(windowed, expected(score, w, options, before=True))


@given(case=cases(), block=st.integers(1, 6))
@settings(max_examples=80, deadline=None, derandomize=True)
def test_smoothing_is_a_majority_vote_per_block(case, block):
    score, w, options = case
    options.pop("window", None)
    options.pop("key_padding", None)
    ours = topw_mask(score, w, selection="smoothed", block=block, **options)
    raw = expected(score, w, options)
    votes = torch.stack([torch.stack([smoothed(m, block) for m in entry]) for entry in raw])
    if "lengths" in options:
        for b, length in enumerate(options["lengths"]):
            votes[b, :, :, int(length) :] = False
    assert torch.equal(ours, votes)


@given(case=cases())
@settings(max_examples=100, deadline=None, derandomize=True)
def test_the_torch_fallback_gives_the_same_lives(case):
    score, w, options = case
    hidden = options.get("key_padding")
    assert torch.equal(selection._in_torch(score, hidden, w), selection._topw_expiry(score, hidden, w))


def test_the_fallback_counts_in_pieces(monkeypatch):
    score = torch.randint(0, 20, (2, 3, 101)).double()
    whole = selection._in_torch(score, None, 9)
    monkeypatch.setattr(selection, "_CHUNK", 7 * score.numel())
    assert torch.equal(selection._in_torch(score, None, 9), whole)
    assert torch.equal(topw_expiry(score, 9), whole)


@pytest.mark.parametrize("n", [1, 5, 6, 28])
def test_constant_scores_keep_a_sliding_window(n):
    expiry = topw_expiry(torch.zeros(1, 1, n), 5)
    assert torch.equal(Expiry(expiry).bind((n,)).mask()[0, 0], windeye.Sliding(5).bind((n,)).mask())


def test_with_room_for_all_keys_the_past_is_kept():
    expiry = topw_expiry(torch.randn(2, 3, 9), 9)
    assert torch.equal(expiry, torch.full((2, 3, 9), 9, dtype=torch.int32))


def test_the_kept_sets_are_nested():
    mask = Expiry(topw_expiry(torch.randn(1, 4, 60), 7)).bind((60,)).mask()[0]
    for i in range(59):
        fresh = mask[:, i + 1] & ~mask[:, i]
        fresh[:, i + 1] = False
        assert not fresh.any(), "a key that was dropped came back"


def test_the_future_changes_nothing_but_in_the_global_selection():
    score = torch.randn(1, 1, 40)
    other = score.clone()
    other[..., 30:] += 5
    for name in LIVES:
        before, after = (topw_mask(s, 6, selection=name)[..., :30, :] for s in (score, other))
        assert torch.equal(before, after) is (name != "global")


def test_global_leaves_early_queries_without_keys():
    score = torch.arange(8.0).reshape(1, 1, 8)
    mask = topw_mask(score, 2, selection="global")
    assert mask[0, 0].any(dim=-1).tolist() == [False] * 6 + [True] * 2


def test_a_key_returns_when_the_window_comes_before_the_selection():
    score = torch.tensor([[[5.0, 1.0, 3.0, 0.0, 0.0]]])
    mask = topw_mask(score, 1, window=3, selection="windowed")[0, 0]
    assert mask[:, 2].tolist() == [False, False, False, True, True]
    after = topw_mask(score, 1, window=3)[0, 0]
    assert after[:, 0].tolist() == [True, True, True, False, False]
    assert not after[3].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_scores_rank_as_they_are(dtype):
    score = torch.randn(1, 2, 50).to(dtype)
    assert torch.equal(topw_expiry(score, 5), topw_expiry(score.double(), 5))


def test_any_layout_and_number_of_threads():
    score = torch.randn(3, 40, 5).permute(0, 2, 1)[:, ::2]
    one = topw_expiry(score, 4)
    torch.set_num_threads(3)
    assert torch.equal(topw_expiry(score, 4), one)
    assert torch.equal(topw_expiry(score.contiguous(), 4), one)
    assert topw_expiry(torch.zeros(2, 3, 0), 4).shape == (2, 3, 0)


def test_infinite_scores_rank_at_the_ends():
    score = torch.tensor([[[torch.inf, -torch.inf, 0.0, torch.inf]]])
    assert topw_expiry(score, 2).tolist() == [[[4, 2, 3, 4]]]


def load(case):
    with np.load(GOLDEN / f"{case}.npz") as file:
        return json.loads(str(file["meta"]))["config"], {k: torch.from_numpy(file[k]) for k in file if k != "meta"}


@pytest.mark.parametrize("case", ["doge_topw_gqa", "doge2_kv_head_scores", "doge_left_padding", "doge_dense_bias"])
def test_official_layers_keep_these_keys(case):
    config, numbers = load(case)
    visible = numbers["input.visible"][:, 0]
    hidden = ~visible[:, -1]
    mask = topw_mask(numbers["output.delta"], config["keep_window_size"], key_padding=hidden)
    sharing = config["heads"] // mask.shape[1]
    seen = visible.any(dim=-1)[:, None, :, None]  # rows without visible keys are averages of everything there
    assert torch.equal(mask.repeat_interleave(sharing, 1) & seen, numbers["output.kept"] & seen)


def test_official_selection_per_query():
    config, numbers = load("flash_per_query")
    score = numbers["output.bias"][:, :, -1]
    assert torch.equal(topw_mask(score, config["window_size"]), numbers["output.mask"])


def test_official_global_selection_before_the_causal_mask():
    config, numbers = load("flash_global_selection")
    chosen = numbers["output.mask"][:, :, 0]
    expiry = topw_expiry(numbers["output.bias"][:, :, 0], config["window_size"], selection="global")
    assert torch.equal(expiry > torch.arange(config["n"]), chosen)


def test_official_relu_selection():
    config, numbers = load("flash_relu")
    score = numbers["output.bias"][:, :, -1]
    assert torch.equal(topw_mask(score, config["window_size"], selection="relu"), numbers["output.mask"])


def test_official_block_smoothing_without_its_keys_of_the_future():
    config, numbers = load("flash_block_smoothing")
    score = numbers["output.bias"][:, :, -1]
    ours = topw_mask(score, config["window_size"], selection="smoothed", block=config["block_size"])
    official = numbers["output.mask"]
    future = torch.ones(config["n"], config["n"], dtype=torch.bool).triu(1)
    assert (official & future).any()
    assert torch.equal(ours, official & ~future)


SCORE = torch.zeros(2, 3, 4)
WRONG = {
    "a list": (lambda: topw_expiry([1.0], 2), TypeError, "score must be a torch.Tensor, got list"),
    "integers": (lambda: topw_expiry(SCORE.long(), 2), TypeError, "score must be floating point, got torch.int64"),
    "two axes": (lambda: topw_expiry(SCORE[0], 2), ValueError, r"\[batch, heads, keys\], got shape \(3, 4\)"),
    "w zero": (lambda: topw_expiry(SCORE, 0), ValueError, "w must be an integer of at least 1, got 0"),
    "w negative": (lambda: topw_expiry(SCORE, -3), ValueError, "at least 1, got -3"),
    "w a bool": (lambda: topw_expiry(SCORE, True), ValueError, "at least 1, got True"),
    "w a float": (lambda: topw_expiry(SCORE, 2.0), ValueError, "at least 1, got 2.0"),
    "lengths of another batch": (lambda: topw_expiry(SCORE, 2, torch.ones(3).long()), ValueError, "2 integers"),
    "float lengths": (lambda: topw_expiry(SCORE, 2, torch.ones(2)), ValueError, "lengths must be 2 integers"),
    "padding in numbers": (lambda: topw_expiry(SCORE, 2, key_padding=SCORE[:, 0]), TypeError, "must be a bool"),
    "padding of another size": (
        lambda: topw_expiry(SCORE, 2, key_padding=torch.zeros(2, 3).bool()), ValueError, r"\(2, 4\), got \(2, 3\)",
    ),
    "window zero": (lambda: topw_expiry(SCORE, 2, window=0), ValueError, "window must be .* at least 1, got 0"),
    "an unknown selection": (lambda: topw_expiry(SCORE, 2, selection="best"), ValueError, "got 'best'"),
    "a selection without lives": (lambda: topw_expiry(SCORE, 2, selection="smoothed"), ValueError, "use topw_mask"),
    "an unknown mask": (lambda: topw_mask(SCORE, 2, selection="best"), ValueError, "selection must be one of causal"),
    "windowed without a window": (lambda: topw_mask(SCORE, 2, selection="windowed"), ValueError, "needs a window"),
    "a block of nothing": (lambda: topw_mask(SCORE, 2, block=3), ValueError, 'block belongs to selection "smoothed"'),
    "smoothed without a block": (lambda: topw_mask(SCORE, 2, selection="smoothed"), ValueError, "got block=None"),
    "block zero": (lambda: topw_mask(SCORE, 2, selection="smoothed", block=0), ValueError, "block must be .* got 0"),
    "a NaN": (
        lambda: topw_expiry(SCORE.index_fill(2, torch.tensor(3), torch.nan), 2), ValueError, r"NaN at .* = \[0, 0, 3\]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls_are_refused(name):
    call, error, words = WRONG[name]
    with pytest.raises(error, match=words):
        call()
