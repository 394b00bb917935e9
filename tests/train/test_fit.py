"""The loop learns, resumes to the bit, stops cleanly, and says what went wrong."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from windeye import Causal, attend
from windeye.data.tasks import IGNORED, MQAR, Fresh
from windeye.train import AdamW, Cosine, NonFinite, fit, score

VOCABULARY, LENGTH = 32, 16
TASK = MQAR(VOCABULARY, LENGTH, pairs=2)


class Reader(nn.Module):
    """Two layers of softmax attention on tokens and the tokens before them: enough for recall."""

    def __init__(self, width: int = 32, dropout: float = 0.0, layers: int = 1) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, width)
        nn.init.normal_(self.embed.weight, std=0.2)
        self.mix = nn.ModuleList(nn.Linear(2 * width, 3 * width) for _ in range(layers))
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(dropout)
        self.head = nn.Linear(width, VOCABULARY, bias=False)
        self.head.weight = self.embed.weight  # tied, as language models do

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.embed(tokens)
        for mix in self.mix:
            before = functional.pad(hidden, (0, 0, 1, 0))[:, :-1]
            query, key, value = mix(torch.cat([hidden, before], dim=-1)).unsqueeze(2).chunk(3, dim=-1)
            hidden = hidden + self.dropout(attend(query, key, value, Causal()).squeeze(2))
        return self.head(self.norm(hidden))


def reader(**options: float) -> Reader:
    torch.manual_seed(3)
    return Reader(**options)


def batches(step: int) -> tuple[Tensor, Tensor]:
    return Fresh(TASK.sample, batch_size=4, seed=1)(step)


def weights(model: nn.Module) -> list[Tensor]:
    return [weight.clone() for weight in model.state_dict().values()]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


class CtrlC:
    """A batch source during which Ctrl-C is pressed."""

    def __init__(self, at: int) -> None:
        self.at = at

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        if step == self.at:
            signal.raise_signal(signal.SIGINT)
        return batches(step)


class TestLearning:
    def test_softmax_attention_learns_recall_far_above_chance(self):
        """Naming any value of the sequence is right half of the time."""
        test = [TASK.sample(200, seed=0, split="test")]
        model = reader()
        rows = fit(
            model,
            Fresh(TASK.sample, batch_size=64),
            steps=120,
            optimiser=AdamW(rate=1e-2),
            schedule=Cosine(warm_up=20),
            evaluate=lambda model: score(model, test),
        )
        assert rows[-1]["accuracy"] > 0.9
        assert rows[-1]["accuracy"] == score(model, test)["accuracy"]
        assert rows[-1]["loss"] < rows[0]["loss"] / 3

    def test_a_step_is_the_step_of_torchs_own_optimiser(self):
        model, plain = reader(), reader()
        rows = fit(model, batches, steps=3, optimiser=AdamW(rate=0.01, clip=0.5), schedule=Cosine(final=1.0))
        decayed = [p for p in plain.parameters() if p.ndim > 1]
        others = [p for p in plain.parameters() if p.ndim < 2]
        groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
        optimiser = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95))
        for step, row in enumerate(rows):
            tokens, targets = batches(step)
            loss = functional.cross_entropy(plain(tokens).flatten(0, 1), targets.flatten())
            optimiser.zero_grad()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
            optimiser.step()
            assert row == {"step": step + 1, "loss": loss.item(), "rate": 0.01, "gradient_norm": norm.item()}
        assert same(weights(model), weights(plain))

    def test_models_may_return_more_than_logits(self):
        class Chatty(Reader):
            def forward(self, tokens):
                return super().forward(tokens), {"cache": None}

        torch.manual_seed(3)
        assert fit(Chatty(), batches, steps=2) == fit(reader(), batches, steps=2)

    def test_whole_sequences_may_have_one_target(self):
        model = nn.Sequential(nn.Flatten(), nn.Linear(6, 3))

        def pictures(step):
            generator = torch.Generator().manual_seed(step)
            images = torch.randn(16, 2, 3, generator=generator)
            return images, images.flatten(1)[:, :3].argmax(dim=1)

        rows = fit(model, pictures, steps=150, optimiser=AdamW(rate=0.05))
        assert rows[-1]["loss"] < 0.5 < rows[0]["loss"]
        assert score(model, [pictures(1000)])["accuracy"] > 0.8

    def test_another_objective_is_made_small(self):
        model = nn.Linear(3, 2)

        def doubled(step):
            inputs = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
            return inputs, 2 * inputs[:, :2]

        def distance(model, inputs, targets):
            return (model(inputs) - targets).square().mean()

        rows = fit(model, doubled, steps=150, optimiser=AdamW(rate=0.1, weight_decay=0), objective=distance)
        assert rows[-1]["loss"] < 1e-3 * rows[0]["loss"]
        assert torch.allclose(model.weight, 2 * torch.eye(2, 3), atol=0.05)

    def test_bf16_computes_in_bf16_and_keeps_float32_weights(self):
        seen = []
        model = reader()
        model.head.register_forward_hook(lambda *call: seen.append(call[-1].dtype))
        rows = fit(model, batches, steps=2, precision="bf16")
        exact = fit(reader(), batches, steps=2)
        assert set(seen) == {torch.bfloat16}
        assert {weight.dtype for weight in model.parameters()} == {torch.float32}
        assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in exact], rel=0.02)
        assert rows != exact

    def test_the_model_comes_back_as_it_was_but_for_its_weights(self):
        model = reader().eval()
        before = set(vars(model))
        fit(model, batches, steps=1, precision="bf16")
        assert set(vars(model)) == before
        assert not model.training
        assert model(batches(0)[0]).dtype == torch.float32


class TestResuming:
    @pytest.mark.parametrize("precision", ["no", "bf16"])
    def test_an_interrupted_run_goes_on_to_the_bit(self, tmp_path, precision):
        """With dropout, so that the random generators count too."""
        options = {"steps": 8, "precision": precision, "schedule": Cosine(warm_up=3)}
        through = reader(dropout=0.3)
        expected = fit(through, batches, **options)
        first = reader(dropout=0.3)
        with pytest.raises(KeyboardInterrupt, match="interrupted after step 4 of 8; call fit again to resume"):
            fit(first, CtrlC(at=3), folder=tmp_path / "run", **options)
        torch.manual_seed(99)
        second = Reader(dropout=0.3)
        rows = fit(second, batches, folder=tmp_path / "run", **options)
        assert rows == expected
        assert same(weights(second), weights(through))

    def test_a_killed_run_goes_on_from_its_last_checkpoint(self, tmp_path):
        class Killed(BaseException):
            pass

        def dying(step):
            if step == 5:
                raise Killed
            return batches(step)

        expected = fit(reader(dropout=0.3), batches, steps=7)
        with pytest.raises(Killed):
            fit(reader(dropout=0.3), dying, steps=7, every=3, folder=tmp_path)
        history = tmp_path / "history.jsonl"
        assert len(history.read_text().splitlines()) == 5
        asked = []

        def counted(step):
            asked.append(step)
            return batches(step)

        assert fit(reader(dropout=0.3), counted, steps=7, every=3, folder=tmp_path) == expected
        assert asked == [3, 4, 5, 6]
        assert [json.loads(line) for line in history.read_text().splitlines()] == expected

    def test_a_finished_run_is_read_back_without_a_step(self, tmp_path):
        model = reader()
        rows = fit(model, batches, steps=3, folder=tmp_path)

        def nothing(step):
            raise AssertionError(step)

        again = reader()
        assert fit(again, nothing, steps=3, folder=tmp_path) == rows
        assert same(weights(again), weights(model))

    def test_a_run_that_was_good_enough_stays_finished(self, tmp_path):
        options = {"steps": 9, "every": 2, "evaluate": lambda _: {"good": 1}, "until": lambda row: row["good"] > 0}
        rows = fit(reader(), batches, folder=tmp_path, **options)
        assert [row["step"] for row in rows] == [1, 2]
        assert fit(reader(), batches, folder=tmp_path, **options) == rows

    def test_the_folder_holds_plain_files(self, tmp_path):
        from safetensors.torch import load_file

        model = reader()
        rows = fit(model, batches, steps=2, folder=tmp_path)
        assert [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()] == rows
        assert json.loads((tmp_path / "settings.json").read_text())["steps"] == 2
        saved = load_file(tmp_path / "checkpoint" / "model.safetensors")
        state = model.state_dict()
        assert all(torch.equal(saved[name], state[name]) for name in saved)
        assert {"embed.weight", "head.weight"} & saved.keys()

    def test_a_kill_while_the_checkpoint_is_replaced_loses_nothing(self, tmp_path):
        expected = fit(reader(), batches, steps=4)
        with pytest.raises(KeyboardInterrupt):
            fit(reader(), CtrlC(at=1), steps=4, folder=tmp_path)
        (tmp_path / "checkpoint").rename(tmp_path / "checkpoint.new")
        assert fit(reader(), batches, steps=4, folder=tmp_path) == expected

    def test_a_half_written_checkpoint_is_not_used(self, tmp_path):
        expected = fit(reader(), batches, steps=4)
        (tmp_path / "checkpoint.new").mkdir()
        (tmp_path / "checkpoint.new" / "model.safetensors").write_bytes(b"half")
        assert fit(reader(), batches, steps=4, folder=tmp_path) == expected

    def test_another_objective_is_another_run(self, tmp_path):
        def surprise(model, tokens, targets):
            return functional.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())

        fit(reader(), batches, steps=2, folder=tmp_path)
        with pytest.raises(ValueError, match=r"other settings: objective None \(now .*surprise\)"):
            fit(reader(), batches, steps=2, folder=tmp_path, objective=surprise)

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"steps": 5}, r"steps 3 \(now 5\)"),
            ({"optimiser": AdamW(rate=0.5)}, r"rate 0.001 \(now 0.5\)"),
            ({"precision": "bf16"}, r"precision no \(now bf16\)"),
        ],
    )
    def test_other_settings_are_refused(self, tmp_path, change, says):
        fit(reader(), batches, steps=3, folder=tmp_path)
        with pytest.raises(ValueError, match=rf"other settings: {says}; name another folder or remove it"):
            fit(reader(), batches, **({"steps": 3} | change), folder=tmp_path)
        with pytest.raises(ValueError, match="other settings: model"):
            fit(reader(width=16), batches, steps=3, folder=tmp_path)


class TestInterrupts:
    def test_ctrl_c_finishes_the_step_and_saves(self, tmp_path):
        with pytest.raises(KeyboardInterrupt):
            fit(reader(), CtrlC(at=2), steps=9, folder=tmp_path)
        assert json.loads((tmp_path / "checkpoint" / "step.json").read_text()) == {"step": 3}

    def test_without_a_folder_it_still_ends_between_steps(self):
        model, done = reader(), reader()
        with pytest.raises(KeyboardInterrupt, match=r"interrupted after step 2 of 9$"):
            fit(model, CtrlC(at=1), steps=9, schedule=Cosine(final=1.0))
        fit(done, batches, steps=2, schedule=Cosine(final=1.0))
        assert same(weights(model), weights(done))

    def test_a_second_ctrl_c_does_not_wait(self):
        def impatient(step):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            raise AssertionError(step)

        with pytest.raises(KeyboardInterrupt):
            fit(reader(), impatient, steps=2)

    def test_the_handler_is_put_back(self):
        before = signal.getsignal(signal.SIGINT)
        fit(reader(), batches, steps=1)
        with pytest.raises(KeyboardInterrupt):
            fit(reader(), CtrlC(at=0), steps=2)
        assert signal.getsignal(signal.SIGINT) is before

    def test_training_in_a_thread_works(self):
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(1) as pool:
            rows = pool.submit(fit, reader(), batches, steps=2).result()
        assert rows == fit(reader(), batches, steps=2)


class TestEvaluating:
    def test_it_happens_every_so_many_steps_and_after_the_last(self):
        rows = fit(reader(), batches, steps=7, every=3, evaluate=lambda _: {"answer": 42})
        assert [row["step"] for row in rows if "answer" in row] == [3, 6, 7]
        rows = fit(reader(), batches, steps=3, evaluate=lambda _: {"answer": 42})
        assert [row["step"] for row in rows if "answer" in row] == [3]

    def test_it_changes_nothing_about_the_training(self):
        def careless(model):
            torch.rand(5)
            assert not model.training
            assert not torch.is_grad_enabled()
            return {"answer": 42}

        rows = fit(reader(dropout=0.5), batches, steps=4, every=1, evaluate=careless)
        torch.manual_seed(3)
        plain = fit(reader(dropout=0.5), batches, steps=4)
        assert [row["loss"] for row in rows] == [row["loss"] for row in plain]

    def test_names_of_steps_are_not_overwritten(self):
        with pytest.raises(ValueError, match=r"must not use the names of a step's own numbers, got \['loss'\]"):
            fit(reader(), batches, steps=1, evaluate=lambda _: {"loss": 0.0})

    def test_progress_is_told(self):
        told = []
        fit(reader(), batches, steps=4, progress=told.append)
        assert told == [0.0, 0.25, 0.5, 0.75, 1.0]


class TestTrouble:
    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_a_broken_loss_names_its_step_and_spares_weights_and_checkpoint(self, tmp_path, value):
        model = reader()
        kept = []

        def breaks(step):
            if step == 4:
                kept.extend(weights(model))
                model.norm.register_forward_hook(lambda *call: call[-1] * value)
            return batches(step)

        with pytest.raises(NonFinite, match=r"the loss of step 5 is nan \(rate .*, 8 judged positions\)"):
            fit(model, breaks, steps=9, every=2, folder=tmp_path)
        assert same(weights(model), kept)
        assert json.loads((tmp_path / "checkpoint" / "step.json").read_text()) == {"step": 4}

    def test_a_broken_gradient_is_told_apart(self):
        model = reader()
        model.norm.weight.register_hook(lambda gradient: gradient * math.inf)
        kept = weights(model)
        with pytest.raises(NonFinite, match=r"the gradient of step 1 has norm (nan|inf) \(loss \d"):
            fit(model, batches, steps=2)
        assert same(weights(model), kept)

    def test_a_batch_without_judged_positions_is_told(self):
        tokens, targets = batches(0)
        with pytest.raises(NonFinite, match="0 judged positions"):
            fit(reader(), lambda _: (tokens, torch.full_like(targets, IGNORED)), steps=1)

    @pytest.mark.parametrize(
        ("wrong", "says"),
        [
            ({"steps": 0}, "steps must be at least 1, got 0"),
            ({"every": 0}, "every must be at least 1, got 0"),
            ({"precision": "fp8"}, "precision must be one of ('no', 'bf16', 'fp16'), got 'fp8'"),
            ({"precision": "fp16"}, 'precision "fp16" needs a GPU and the model is on the CPU; "bf16" runs there'),
        ],
    )
    def test_bad_settings_are_refused(self, wrong, says):
        with pytest.raises(ValueError, match=re.escape(says)):
            fit(reader(), batches, **({"steps": 1} | wrong))

    def test_a_frozen_model_is_refused(self):
        with pytest.raises(ValueError, match="model has no parameter that requires a gradient"):
            fit(reader().requires_grad_(False), batches, steps=1)

    @pytest.mark.parametrize("library", ["accelerate", "torchmetrics"])
    def test_without_a_library_the_error_names_the_extra(self, monkeypatch, library):
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(ImportError, match=rf"windeye.train needs {library}: pip install 'windeye\[train\]'"):
            fit(reader(), batches, steps=1, evaluate=lambda model: score(model, [batches(0)]))


TWO_PROCESSES = """
import json, sys
import torch
sys.path.insert(0, {tests!r})
from train.test_fit import batches, reader, weights
from windeye.train import Cosine, fit
torch.set_num_threads(1)
model = reader()
rows = fit(model, batches, steps=3, schedule=Cosine(final=1.0), folder={folder!r})
print(json.dumps([rows, float(sum(w.double().sum() for w in weights(model)))]))
"""


def test_two_processes_take_the_steps_of_one_with_both_batches(tmp_path):
    """Losses and weights agree with one process that trains on the two batches of each step at once."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = tmp_path / "run.py"
    folder = str(tmp_path / "run")
    script.write_text(textwrap.dedent(TWO_PROCESSES).format(tests=str(Path(__file__).parents[1]), folder=folder))
    shared = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    running = [
        subprocess.Popen(
            [sys.executable, str(script)],
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = []
    for process in running:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        said.append(json.loads(out.splitlines()[-1]))
    assert said[0] == said[1]

    def both(step):
        return tuple(torch.cat(pair) for pair in zip(batches(2 * step), batches(2 * step + 1), strict=True))

    model = reader()
    rows = fit(model, both, steps=3, schedule=Cosine(final=1.0))
    assert [row["loss"] for row in said[0][0]] == pytest.approx([row["loss"] for row in rows], rel=1e-5)
    assert said[0][1] == pytest.approx(float(sum(w.double().sum() for w in weights(model))), rel=1e-4)
    assert len((tmp_path / "run" / "history.jsonl").read_text().splitlines()) == 3
