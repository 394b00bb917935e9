"""The loop over arms and seeds."""

import torch

from windeye.papers.arms import each_arm
from windeye.report import Pieces, Recorder


def pieces(path=None, progress=lambda _name, _share: None, total=4.0):
    return Pieces(Recorder(path, {}), progress, total)


def test_every_arm_meets_every_seed_once_on_one_thread():
    met = []

    def train(arm, seed, _tell):
        met.append((arm, seed, torch.get_num_threads()))
        return {"arm": arm, "seed": seed}

    found = each_arm(pieces(), ("a", "b"), (3, 5), "2 steps", train)
    assert met == [("a", 3, 1), ("b", 3, 1), ("a", 5, 1), ("b", 5, 1)]
    assert found == {arm: [{"arm": arm, "seed": seed} for seed in (3, 5)] for arm in ("a", "b")}


def test_finished_parts_are_read_back_unless_what_they_depend_on_differs(tmp_path):
    trained = []

    def train(arm, seed, _tell):
        trained.append((arm, seed))
        return len(trained)

    def again(seeds, detail):
        return each_arm(pieces(tmp_path / "parts.jsonl"), ("a",), seeds, detail, train)

    assert again((0,), "2 steps") == {"a": [1]}
    assert again((0, 1), "2 steps") == {"a": [1, 2]}
    assert again((0, 1), "3 steps") == {"a": [3, 4]}
    assert trained == [("a", 0), ("a", 1), ("a", 0), ("a", 1)]


def test_progress_grows_by_one_network_at_a_time():
    told = []

    def train(_arm, _seed, tell):
        tell(0.5)
        return 0

    work = pieces(progress=lambda part, share: told.append((part, share)), total=5)
    each_arm(work, ("a", "b"), (0, 1), "2 steps", train)
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert shares[:3] == [0.0, 0.1, 0.2]
    assert told[-1] == ("b, seed 1, 2 steps", 0.8)
