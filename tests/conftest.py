"""Tests run on one thread each, reproducibly."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    # Read when Triton is imported, which torch may do first.
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_configure():
    torch.set_num_threads(1)  # for fixtures of modules, which are made before those of functions


@pytest.fixture(autouse=True)
def _one_thread_one_seed():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        skip = pytest.mark.skip(reason="needs a CUDA device, none is visible")
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(skip)
