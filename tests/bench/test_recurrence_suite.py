"""The recurrence suite: what it compares is equal, and its table is made from the result."""

import pytest
import torch

from windeye.bench import recurrence


@pytest.mark.parametrize("case", recurrence.CASES, ids=lambda c: c.name)
def test_candidates_compute_the_same(case):
    q, k, v, decay = recurrence._inputs(case, 70, grad=False)
    options = {"log_decay": decay, "feature_map": case.feature_map, "normalize": case.normalize}
    ours, chunks = (
        recurrence.linear_attention(q, k, v, backend=backend, form="chunk", **options) for backend in ("auto", "torch")
    )
    size = chunks.float().abs().max()
    assert (ours.float() - chunks.float()).abs().max() <= 2 * torch.finfo(case.dtype).eps * 20 * size


def test_parts_have_names_of_their_own():
    names = [name for name, _ in recurrence.parts()]
    assert len(names) == len(set(names))
    assert {"constant speed", "decoding", "memory"} <= set(names)


def test_the_table_is_made_from_the_result():
    timing = {"seconds": 0.05}
    parts = {
        "training no decay": {
            "timings": {"dense": {"seconds": 0.5}, "torch chunks": {"seconds": 0.2}, "windeye": timing},
            "over_dense": 10.0, "over_torch": 4.0, "tokens_per_second": 81920.0,
        },
        "length 32768": {
            "timings": {"torch chunks": {"seconds": 2.0}, "windeye": {"seconds": 0.4}},
            "over_dense": None, "over_torch": 5.0, "tokens_per_second": 81920.0,
        },
        "decoding": {},
    }  # fmt: skip
    assert recurrence.rows({"parts": parts}) == [
        ("no decay", "500", "200", "50.0", "10.0x", "4.0x", "81,920"),
        ("tokens 32768", "", "2000", "400", "", "5.0x", "81,920"),
    ]
