"""NATTEN behind our interface, with a stand-in for the package: what it is called with, and when it is not."""

import sys
import types

import pytest
import torch

import windeye
from windeye import Neighborhood, Sliding
from windeye.kernels.softmax import natten
from windeye.kernels.softmax.operands import Operands
from windeye.kernels.softmax.problem import Problem

CUDA = torch.device("cuda")


def problem(**facts):
    usual = {
        "pattern": Neighborhood(5), "grid": (9, 9), "grid_kv": (9, 9), "batch": 1, "heads": 2, "kv_heads": 2,
        "head_dim": 32, "value_dim": 32, "dtype": torch.float16, "device": CUDA, "scale": 0.2,
    }  # fmt: skip
    return Problem(**{**usual, **facts})


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr(natten, "_installed", lambda: True)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"device": torch.device("cpu")}, "CUDA"),
        ({"pattern": Neighborhood(5, boundary="wrap")}, "clamp"),
        ({"pattern": Sliding(5), "grid": (9,), "grid_kv": (9,)}, "Neighborhood"),
        ({"grid_kv": (8, 9)}, "equal"),
        ({"pattern": Neighborhood(1)}, "kernel_size of 1"),
        ({"dtype": torch.float64}, "float64"),
        ({"has_bias": True}, "bias"),
        ({"has_key_padding": True}, "padding"),
        ({"dropout_p": 0.5}, "dropout"),
        ({"head_dim": 12}, "multiples of 8"),
        ({"batch": 0}, "empty"),
    ],
)
def test_reasons(facts, reason):
    assert reason in natten.can_run(problem(**facts))


@pytest.mark.usefixtures("installed")
def test_it_can_run_plain_windows():
    assert natten.can_run(problem()) is None
    assert natten.can_run(problem(pattern=Neighborhood((-1, 4), stride=2, dilation=(1, 2)))) is None


def test_without_the_package_it_says_so(monkeypatch):
    monkeypatch.setattr(natten, "_installed", lambda: False)
    assert "not installed" in natten.can_run(problem())


def test_what_natten_is_called_with(monkeypatch):
    called = {}

    def na2d(query, key, value, **options):
        called.update(options)
        return windeye.attend(query, key, value, Neighborhood((9, 4), dilation=(1, 2)), scale=0.2, return_lse=True)

    functional = types.ModuleType("natten.functional")
    functional.na2d = na2d
    monkeypatch.setitem(sys.modules, "natten", types.ModuleType("natten"))
    monkeypatch.setitem(sys.modules, "natten.functional", functional)
    q, k, v = torch.randn(3, 1, 9, 9, 2, 32).unbind(0)
    out, lse = natten.attend(problem(pattern=Neighborhood((-1, 4), dilation=(1, 2))), Operands(q, k, v))
    assert called == {
        "kernel_size": (9, 4), "stride": 1, "dilation": (1, 2), "is_causal": False, "scale": 0.2, "return_lse": True,
    }  # fmt: skip
    assert out.shape == q.shape
    assert lse.shape == q.shape[:-1]
