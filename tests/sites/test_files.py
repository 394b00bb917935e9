"""Edits survive being written as JSON; JSON that is wrong says where."""

import pytest
import torch

from windeye.models import transformer
from windeye.sites import (
    Add,
    Hide,
    KeyBias,
    Keys,
    Patch,
    Rescore,
    Scale,
    ScoreBoost,
    Set,
    SetAttention,
    Where,
    edits_from_json,
    edits_to_json,
    record,
    steer,
)

EDITS = [
    KeyBias(-1.5, Keys.span(2, 9, outside=True), where=Where(rows="last")),
    ScoreBoost(0.25, Keys.at(1, 4), where=Where(layers=(0, 2))),
    Hide(Keys((((0, 1),), ((2, 3), (5, 6)))), where=Where(heads={1: (0, 3)})),
    SetAttention({3: 0.5, 7: 0.5}, where=Where(layers=(1,), heads=(2,), rows=Keys.at(8))),
    Scale("z", 0.0),
    Add("resid_post", 0.5, where=Where(rows=Keys.span(1, 3))),
]


def test_edits_read_back_as_they_were():
    assert edits_from_json(edits_to_json(EDITS)) == EDITS
    assert edits_from_json(edits_to_json([])) == []


def test_tensors_and_recordings_read_back(tmp_path):
    model = transformer(layers=2, dim=16, heads=2, vocab_size=20)
    ids = torch.arange(6)[None]
    with record(model, ["z"]) as recording:
        model(ids)
    patch = Patch("z", recording, where=Where(layers=(1,)))
    with pytest.raises(ValueError, match="once its recording has been saved"):
        edits_to_json([patch])
    recording.save(tmp_path / "run.safetensors")
    edits = [Set("resid_pre", torch.linspace(0, 1, 16), where=Where(layers=(0,))), patch]
    text = edits_to_json(edits)
    with steer(model, edits):
        truth = model(ids)
    with steer(model, edits_from_json(text, model)):
        torch.testing.assert_close(model(ids), truth)
    with pytest.raises(ValueError, match="patches need the model"):
        edits_from_json(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "edits are not JSON"),
        ('{"edit": "scale"}', "edits must be a list of objects"),
        ('[{"edit": "scales"}]', r"edits\[0\] is 'scales'; edits are key_bias, score_boost"),
        ('[{"edit": "scale", "site": "z", "gain": 1}]', r"edits\[0\] \(scale\) knows no gain; it takes site, factor"),
        ('[{"edit": "scale", "site": "zz", "factor": 1}]', "there is no site 'zz'"),
        ('[{"edit": "scale", "site": "z"}]', "factor"),
        ('[{"edit": "hide", "keys": "all"}]', "positions must be a list"),
        ('[{"edit": "hide", "keys": [1], "rows": "first"}]', 'rows must be "all", "last" or Keys'),
        ('[{"edit": "set_attention", "weights": {"3": -1}}]', "weights must not be negative"),
    ],
)
def test_wrong_json_says_where(text, message):
    with pytest.raises(ValueError, match=message):
        edits_from_json(text)


def test_functions_are_not_written():
    with pytest.raises(ValueError, match="'rescore' holds a function"):
        edits_to_json([Rescore(lambda s: s)])
