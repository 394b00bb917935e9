"""Decoders with a memory: what their names build, and that steps are the whole."""

import pytest
import torch

from windeye.models import AttentionSpec, TitansSpec, create, generate, titans


@pytest.mark.parametrize("variant", ["lmm", "mac", "mag", "mal"])
def test_small_ones_have_memory_in_three_layers(variant):
    with torch.device("meta"):
        model = create(f"titans_{variant}_small")
    kinds = [type(spec) for spec in model.config.mixers]
    assert [layer for layer, kind in enumerate(kinds) if kind is TitansSpec] == [1, 3, 5]
    assert kinds.count(AttentionSpec) == 5
    assert model.config.mixers[1].variant == variant
    # A state that is bounded: no more after a million tokens than after two windows.
    assert model.state_bytes(2**20) == model.state_bytes(64)


@pytest.mark.parametrize("variant", ["lmm", "mac", "mag", "mal"])
def test_generation_takes_the_most_likely_token_of_a_whole_pass(variant):
    torch.manual_seed(0)
    settings = {"layers": 3, "dim": 16, "heads": 2, "memory_layers": (0, 2), "window": 5, "chunk_size": 3}
    model = create(f"titans_{variant}_small", **settings, vocab_size=20).double()
    prompts = torch.randint(20, (3, 9))
    padding = torch.arange(9) < torch.tensor([[0], [3], [7]])
    new = generate(model, prompts, 8, padding=padding)
    for row, begin in enumerate((0, 3, 7)):
        ids = prompts[row : row + 1, begin:]
        for token in new[row]:
            assert model(ids)[0, -1].argmax() == token
            ids = torch.cat((ids, token.view(1, 1)), dim=1)


def test_wrong_layers_and_settings_are_refused():
    with pytest.raises(ValueError, match="memory_layers name layer 3 but there are 2, from 0"):
        titans("mac", 2, 16, 2, memory_layers=[1, 3])
    with pytest.raises(TypeError, match="unexpected keyword argument 'depths'"):
        titans("mac", 2, 16, 2, depths=3)
