"""The routing suite: all forms are one attention, memory is linear in the tokens, rows are what was measured."""

import pytest
import torch

from windeye.bench import routing
from windeye.bench.timing import can_measure_memory


@pytest.mark.parametrize("case", routing.QUICK, ids=lambda case: case.name)
def test_forms_agree(case):
    inputs = [t.detach().double().requires_grad_(case.train) for t in routing.tensors(case)]
    for ours, theirs in zip(
        routing.run(case, "routed", inputs), routing.run(case, "all gathered", inputs), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-11)


def test_keeping_all_regions_is_dense():
    case = routing.Case(2, 8, 2, 2, 4)
    inputs = [t.double() for t in routing.tensors(case)]
    (ours,), (theirs,) = (routing.run(case, form, inputs) for form in ("routed", "dense"))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-11)


def test_parts_become_rows():
    case = routing.QUICK[0]
    result = {
        "parts": {f"time {case.name}": routing.times(case, 3), f"memory {case.name}": {"routed": 1, "all gathered": 2}}
    }
    ((name, *numbers),) = routing.rows(result)
    assert name == case.name
    assert len(numbers) + 1 == len(routing.COLUMNS)
    names = [part for part, _ in routing.parts()]
    assert len(set(names)) == len(names)


@pytest.mark.skipif(not can_measure_memory(), reason="needs /proc")
def test_memory_grows_with_the_tokens_and_not_with_the_keys_that_are_kept():
    """Spec: at 16 kept regions at most a quarter of what copies of all kept keys take; four times the tokens are four
    times the bytes."""
    small = routing.memory(routing.Case(1, 64, 2, 8, 16), ["routed"])
    large = routing.memory(routing.Case(1, 128, 2, 16, 16))
    assert large["routed"] < 0.25 * large["all gathered"]
    assert large["routed"] < 5 * small["routed"] + 2**22
