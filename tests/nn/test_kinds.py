"""Registries of kinds: names are taken once, unknown ones say what there is."""

import json
from dataclasses import dataclass

import pytest

from windeye.nn.kinds import Kinds


@pytest.fixture
def shapes():
    known = Kinds("shape")

    @known.register("disc")
    @dataclass(frozen=True)
    class Disc:
        radius: float = 1.0
        centre: tuple[int, int] = (0, 0)

    return known


def test_settings_survive_as_plain_data(shapes):
    disc = shapes["disc"](2.0, (3, 4))
    assert shapes.to_dict(disc) == {"kind": "disc", "radius": 2.0, "centre": (3, 4)}
    settings = shapes.to_dict(disc)
    assert shapes.from_dict(settings) == disc
    assert "kind" in settings


def test_tuples_survive_json(shapes):
    disc = shapes["disc"](2.0, (3, (4, 5)))
    assert shapes.from_dict(json.loads(json.dumps(shapes.to_dict(disc)))) == disc


def test_a_name_is_taken_once(shapes):
    with pytest.raises(ValueError, match=r"shape 'disc' is registered twice"):
        shapes.register("disc")(type("Other", (), {}))
    assert shapes["disc"].__name__ == "Disc"


def test_an_unknown_kind_says_what_there_is(shapes):
    with pytest.raises(ValueError, match=r"unknown shape 'ball'; known are disc"):
        shapes.from_dict({"kind": "ball", "radius": 1.0})


def test_an_unknown_setting_is_refused(shapes):
    with pytest.raises(TypeError, match="weight"):
        shapes.from_dict({"kind": "disc", "weight": 1.0})
