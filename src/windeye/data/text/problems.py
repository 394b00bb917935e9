"""Mathematical problems with final answers, from files of JSON lines in the layouts of GSM8K and of DAPO."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class MathProblem:
    """A question in words, its final answer, and the worked solution where the file has one."""

    question: str
    answer: str
    solution: str = ""

    def right(self, response: str) -> bool:
        """Whether the last boxed answer of a response, or else what follows its last ``####``, is the answer.

        Commas, dollar signs, blanks and a last full stop are passed over, and numbers compared as numbers.

        Example:
            >>> problem = MathProblem("How much is 40 + 2?", "42")
            >>> problem.right("So it is \\\\boxed{42.0}."), problem.right("#### 41"), problem.right("42")
            (True, False, False)
        """
        found = _final(response)
        if found is None:
            return False
        given, wanted = _plain(found), _plain(self.answer)
        try:
            return float(given) == float(wanted)
        except ValueError:
            return given == wanted


def read_problems(path: Path | str) -> list[MathProblem]:
    """Problems of a file of JSON lines.

    A line is either ``{"question": ..., "answer": "... #### 42"}`` (GSM8K), or ``{"prompt": [{"content": ...}],
    "reward_model": {"ground_truth": ...}}``, where the prompt may be plain text, too (DAPO).

    Raises:
        ValueError: a line is neither; names the file, the line and the keys that it has.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "test.jsonl"
        >>> _ = path.write_text('{"question": "2 + 2?", "answer": "Add them. #### 4"}')
        >>> read_problems(path)
        [MathProblem(question='2 + 2?', answer='4', solution='Add them.')]
    """
    return list(_problems(Path(path)))


def _problems(path: Path) -> Iterator[MathProblem]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                yield _problem(json.loads(line))
            except (KeyError, TypeError, IndexError, ValueError) as error:
                raise ValueError(
                    f"line {number} of {path} is no problem ({error}): it needs question and answer with ####, or "
                    "prompt and reward_model with ground_truth"
                ) from error


def _problem(entry: dict[str, Any]) -> MathProblem:
    if "question" in entry:
        solution, mark, answer = entry["answer"].rpartition("####")
        if not mark:
            raise ValueError("answer has no ####")
        return MathProblem(entry["question"], answer.strip(), solution.strip())
    prompt = entry["prompt"]
    question = prompt if isinstance(prompt, str) else prompt[-1]["content"]
    return MathProblem(question, str(entry["reward_model"]["ground_truth"]).strip())


def _final(response: str) -> str | None:
    """What stands in the last box, braces inside it included, or after the last ``####``."""
    begin = response.rfind("\\boxed{")
    if begin >= 0:
        depth = 0
        for place in range(begin + len("\\boxed"), len(response)):
            depth += {"{": 1, "}": -1}.get(response[place], 0)
            if depth == 0:
                return response[begin + len("\\boxed{") : place]
        return None
    _, mark, rest = response.rpartition("####")
    return rest.strip().split("\n")[0] if mark else None


def _plain(answer: str) -> str:
    return re.sub(r"[\s,$]|\\[!,;]", "", answer).rstrip(".")
