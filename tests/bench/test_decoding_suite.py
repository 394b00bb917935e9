"""The decoding suite: which mixers it finds, that it times real decoding, and its table."""

import pytest
import torch

from windeye.bench import decoding
from windeye.models.mixers import MIXERS, AttentionSpec


def test_every_registered_mixer_with_a_bounded_state_is_found():
    found = decoding.specs()
    assert {"lightning", "taylor", "convolution", "product convolution", "attention, window 256"} <= found.keys()
    assert "attention" not in found
    assert not decoding.is_bounded(decoding.layer_of(AttentionSpec(8)))
    assert {spec.kind for spec in found.values()} == {
        kind for kind, spec in MIXERS.items() if kind == "attention" or decoding.is_bounded(decoding.layer_of(spec()))
    }


@pytest.mark.parametrize("name", ["lightning", "attention, window 256"])
def test_what_is_timed_is_decoding_after_the_past(name):
    layer, state = decoding._filled(decoding.specs()[name], 40)
    assert state.seen.tolist() == [40]
    told = []
    step = layer.step

    def watched(token, before):
        out, after = step(token, before)
        told.append((before.seen.item(), after.seen.item()))
        return out, after

    layer.step = watched
    run = decoding._steps(layer, state)
    with torch.no_grad():
        run()
        run()
    assert told == [(40 + i, 41 + i) for i in range(2 * decoding.STEPS)]


def test_the_peer_is_attention_over_a_cache_that_grows():
    """Its work is done by one call of torch's attention per token, over one key more each time."""
    seen = []
    usual = torch.nn.functional.scaled_dot_product_attention

    def watched(query, key, value):
        seen.append((tuple(query.shape), tuple(key.shape)))
        assert key.isfinite().all()
        return usual(query, key, value)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(decoding.F, "scaled_dot_product_attention", watched)
        run = decoding._fused(20)
        run()
    heads, width = decoding.HEADS, decoding.HEAD_DIM
    assert seen == [((1, heads, 1, width), (1, heads, 21 + i, width)) for i in range(decoding.STEPS)]


def test_a_part_is_measured_and_becomes_a_row():
    part = decoding._decode(decoding.specs()["product convolution"], (16, 48), 3)
    assert len(part["milliseconds"]) == len(part["fused"]) == len(part["over_fused"]) == 2
    assert all(value > 0 for value in (*part["milliseconds"], *part["fused"], *part["over_fused"]))
    assert part["slowest_over_fastest"] >= 1
    assert part["state_bytes"] == 2 * decoding.DIM * 4


def test_the_table_has_the_cheapest_first_and_the_peer_last():
    def part(ms):
        return {
            "milliseconds": [ms, ms, ms, 1.1 * ms], "fused": [1.0, 2.0, 4.0, 16.0], "slowest_over_fastest": 1.1,
            "over_fused": [1.0, 2.0, 4.0, 16 / ms], "state_bytes": 2048,
        }  # fmt: skip

    rows = decoding.rows({"parts": {"slow": part(4.0), "fast": part(0.5)}})
    assert rows == [
        ("fast", "0.50", "0.50", "0.50", "0.55", "1.10x", "2", "32.0x"),
        ("slow", "4.00", "4.00", "4.00", "4.40", "1.10x", "2", "4.0x"),
        (decoding.FUSED, "1.00", "2.00", "4.00", "16.00", "16.00x", "131,072", "1.00x"),
    ]
    assert all(len(row) == len(decoding.COLUMNS) for row in rows)


def test_parts_have_names_of_their_own():
    names = [name for name, _ in decoding.parts()]
    assert len(names) == len(set(names)) == len(decoding.specs()) + 1
