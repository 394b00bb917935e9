"""A real chat model and a fact in a long text: with and without its template, and steered to what the user wrote."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, TypedDict

import torch
from jaxtyping import Float, Int
from torch import Tensor

from windeye.data.tasks.haystack import SANDWICH, Haystack, Layout, keyword_recall, prompt, question
from windeye.data.text import Labelled, chat_template, corpus, label_tokens
from windeye.data.text.conversation import Label
from windeye.ops import SpanMass
from windeye.papers.context_awareness.plan import Needles
from windeye.report import Tell
from windeye.sites import KeyBias, context_scores, emphasis, steer, watch
from windeye.sites.context import dependency

STEERED = (0.9, 0.5, 0.2)
LAYOUTS: tuple[Layout, ...] = ("raw", "chat")
READ: tuple[Label, ...] = ("user", "assistant", "bos", "template")


class Cell(TypedDict):
    """One length and depth: recall of the keywords by arm, and where the last token of the answer's beginning looks."""

    length: int
    depth: float
    recall: dict[str, float]
    allocation: dict[str, dict[str, float]]


class Answers(TypedDict):
    """What a model answered in every cell."""

    cells: list[Cell]
    passes: dict[str, float]
    """Seconds of the processor for one pass over a conversation, by what it is for."""
    seconds: float


def ask(plan: Needles, tell: Tell) -> Answers:
    """Ask a model of transformers for a fact at every length and depth.

    A prompt is read once, up to its last token. From there on each arm goes on by itself, so that what is steered is
    the last token of the prompt and the answer, as in the paper; the context is read without steering.

    Raises:
        ImportError: without transformers. windeye.data.AssetUnavailable: the model is not on this machine.
    """
    from windeye.hf.attach import attach
    from windeye.hf.pretrained import load

    began = time.process_time()
    model, tokenizer = load(plan.model)
    hay = Haystack(_help_topics(), lambda text: len(tokenizer.encode(text, add_special_tokens=False)))
    passes = passes_of(model, plan)
    handle = attach(model)
    cells: list[Cell] = []
    try:
        places = [(length, depth) for length in plan.lengths for depth in plan.depths]
        for done, (length, depth) in enumerate(places):
            asked = question(hay.context(SANDWICH, length=length, depth=depth, seed=done), SANDWICH)
            cells.append(_cell(model, tokenizer, asked, plan, length, depth))
            tell((done + 1) / len(places))
    finally:
        handle.undo()
    return Answers(cells=cells, passes=passes, seconds=time.process_time() - began)


def _help_topics() -> str:
    return bytes(corpus("pydoc").numpy()).decode()


@torch.no_grad()
def _cell(model: Any, tokenizer: Any, asked: str, plan: Needles, length: int, depth: float) -> Cell:
    recall: dict[str, float] = {}
    allocation: dict[str, dict[str, float]] = {}
    head: int | None = None
    for layout in LAYOUTS:
        begun, open_prompt = (_labelled(layout, asked, tokenizer, answer) for answer in (SANDWICH.prefix(), ""))
        # The last token of the open prompt is read by each arm, so that it can be steered.
        read = Read(model, open_prompt.ids[: min(common(begun.ids, open_prompt.ids), len(open_prompt.ids) - 1)])
        arms: dict[str, tuple[Labelled, list[KeyBias]]] = {
            f"{layout}, answer begun": (begun, []),
            f"{layout}": (open_prompt, []),
        }
        if layout == "chat":
            user = open_prompt.of("user")[None]
            arms |= {f"{layout}, alpha {alpha}": (open_prompt, [emphasis(user, alpha)]) for alpha in STEERED}
        for name, (tokens, edits) in arms.items():
            with steer(model, edits):
                words = read.go_on(tokens.ids, plan.new_tokens, tokenizer.eos_token_id)
            recall[name] = keyword_recall(tokenizer.decode(words), SANDWICH.keywords)
        mass = read.look(begun, plan.layer)
        # Chosen without the template and kept with it, as the paper does.
        head = int(mass[:, READ.index("user")].argmax()) if head is None else head
        allocation[layout] = shares(mass[head])
    return Cell(length=length, depth=depth, recall=recall, allocation=allocation)


def _labelled(layout: Layout, asked: str, tokenizer: Any, answer: str) -> Labelled:
    template = chat_template(tokenizer, generation_prompt=not answer)
    return label_tokens(prompt(layout, asked, template, answer=answer), tokenizer)


def shares(mass: Float[Tensor, " labels"]) -> dict[str, float]:
    """The weight on each of `READ`, and on all but the template when that is left out.

    Example:
        >>> shares(torch.tensor([0.2, 0.1, 0.1, 0.6]))["user of the rest"]
        0.5
    """
    found = dict(zip(READ, mass.double().tolist(), strict=True))
    rest = sum(share for label, share in found.items() if label != "template")
    return {label: round(share, 6) for label, share in found.items()} | {
        "user of the rest": round(found["user"] / rest, 6) if rest else 0.0
    }


def common(first: Int[Tensor, " a"], second: Int[Tensor, " b"]) -> int:
    """How many tokens two prompts begin with alike.

    Example:
        >>> common(torch.tensor([1, 2, 3]), torch.tensor([1, 2, 4, 5]))
        2
    """
    shorter = min(len(first), len(second))
    differ = (first[:shorter] != second[:shorter]).nonzero()
    return int(differ[0]) if len(differ) else shorter


@torch.no_grad()
def passes_of(model: Any, plan: Needles) -> dict[str, float]:
    """What a pass costs: plain, steered, for the score of an answer, and for that score from whole maps. The faster of
    two rounds, in which all take turns."""
    from windeye.hf.attach import attach

    ids = torch.randint(1000, (1, plan.timed), generator=torch.Generator().manual_seed(0))
    place = torch.arange(plan.timed)[None]
    user, answers = place < plan.timed // 2, (place >= plan.timed // 2)[:, None]

    def from_maps() -> None:
        own = model.config._attn_implementation
        model.set_attn_implementation("eager")
        maps = model(ids, output_attentions=True, use_cache=False, logits_to_keep=1).attentions
        model.set_attn_implementation(own)
        dependency((maps[plan.layer] * user[:, None, None]).sum(dim=-1).transpose(1, 2), answers)

    def plain() -> None:
        model(ids, use_cache=False, logits_to_keep=1)

    def steered() -> None:
        with attach(model), steer(model, [emphasis(user, 0.5)]):
            plain()

    def scored() -> None:
        with attach(model):
            context_scores(model, ids, user, answers, layer=plan.layer, use_cache=False, logits_to_keep=1)

    rounds = {"a plain pass": plain, "a steered pass": steered, "a score": scored, "a score from whole maps": from_maps}
    taken = [{name: _seconds(work) for name, work in rounds.items()} for _ in range(2)]
    return {name: min(once[name] for once in taken) for name in rounds}


def _seconds(work: Callable[[], None]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


class Read:
    """A prompt that a model of transformers has read, from which answers go on."""

    def __init__(self, model: Any, ids: Int[Tensor, " tokens"]) -> None:
        from windeye.hf.cache import CACHE

        self.model, self.ids, self.name = model, ids, CACHE
        self.cache = model(ids[None], use_cache=True, logits_to_keep=1).past_key_values

    def go_on(self, ids: Int[Tensor, " tokens"], new_tokens: int, end: int | None) -> list[int]:
        """What the model writes behind a prompt that begins with the one that was read."""
        written: list[int] = []
        step = self._rest(ids)
        while len(written) < new_tokens:
            logits = self._pass(step)
            written.append(int(logits.argmax()))
            if written[-1] == end:
                break
            step = ids.new_tensor([written[-1]])
        self._back()
        return written

    def look(self, tokens: Labelled, layer: int) -> Float[Tensor, "heads labels"]:
        """The weight of the last token on the tokens of each of `READ`, by head."""
        spans = torch.stack([tokens.of(label) for label in READ])[None]
        with watch(self.model, {"spans": SpanMass(spans)}, layers=[layer]) as seen:
            self._pass(self._rest(tokens.ids))
        self._back()
        return seen["spans", layer][0, -1]

    def _rest(self, ids: Int[Tensor, " tokens"]) -> Int[Tensor, " rest"]:
        if not torch.equal(ids[: len(self.ids)], self.ids):
            raise ValueError("the prompt must begin with the tokens that were read")
        return ids[len(self.ids) :]

    def _pass(self, ids: Int[Tensor, " tokens"]) -> Float[Tensor, " vocabulary"]:
        return self.model(ids[None], **{self.name: self.cache}, use_cache=True, logits_to_keep=1).logits[0, -1]

    def _back(self) -> None:
        # A negative number is how many tokens go, in every release; a positive one is refused by later ones.
        self.cache.crop(len(self.ids) - self.cache.get_seq_length())


def mean_recall(cells: Sequence[Cell], arm: str, length: int | None = None) -> tuple[float, ...]:
    """Recall of an arm in all cells, or in those of one length.

    Example:
        >>> cell = Cell(length=512, depth=0.0, recall={"chat": 0.5}, allocation={})
        >>> mean_recall([cell], "chat")
        (0.5,)
    """
    return tuple(cell["recall"][arm] for cell in cells if length in (None, cell["length"]))


def user_share(cells: Sequence[Cell], layout: Layout, what: str = "user") -> float:
    """The mean weight on one of `READ` over all cells."""
    return statistics.fmean(cell["allocation"][layout][what] for cell in cells)
