"""Agreement of answers with transformers' answers, as a table for people and as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from florence_onnx.tasks import Task

_SHOWN = 60


@dataclass(frozen=True)
class Answers:
    """Answers of ONNX Runtime and of transformers to one question."""

    task: Task
    """Task that was asked."""
    picture: str
    """File name of the picture."""
    beams: int
    """Beams of the search, 1 for greedy search."""
    ours: tuple[int, ...]
    """Token ids of ONNX Runtime's answer."""
    theirs: tuple[int, ...]
    """Token ids of transformers' answer."""
    texts: tuple[str, str]
    """Texts of both answers, in the order of the fields above."""

    @property
    def equal(self) -> bool:
        """Tells whether the answers are equal, token for token."""
        return self.ours == self.theirs

    @property
    def first_difference(self) -> int:
        """Place of the first token that differs, or the length of equal answers."""
        pairs = enumerate(zip(self.ours, self.theirs, strict=False))
        shorter = min(len(self.ours), len(self.theirs))
        return next((i for i, (a, b) in pairs if a != b), shorter)


def content(found: Sequence[Answers], about: Mapping[str, Any]) -> dict[str, Any]:
    """Counts the equal answers of every task and lists the differences, ready for JSON."""
    tasks: dict[str, dict[str, list[int]]] = {}
    for one in found:
        counts = tasks.setdefault(one.task.value, {}).setdefault(_search(one.beams), [0, 0])
        counts[0] += one.equal
        counts[1] += 1
    return {
        **about,
        "tasks": {
            task: {
                search: {"equal": equal, "answers": answers}
                for search, (equal, answers) in searches.items()
            }
            for task, searches in tasks.items()
        },
        "differences": [
            {
                "task": one.task.value,
                "picture": one.picture,
                "search": _search(one.beams),
                "first_difference": one.first_difference,
                "florence_onnx": one.texts[0],
                "transformers": one.texts[1],
            }
            for one in found
            if not one.equal
        ],
    }


def markdown(compared: Mapping[str, Any]) -> str:
    """Makes a table for a model card, from the result of `content`."""
    tasks: Mapping[str, Any] = compared["tasks"]
    searches = list(next(iter(tasks.values())))
    versions = ", ".join(f"{name} {version}" for name, version in compared["versions"].items())
    lines = [
        f"Answers of {compared['folder']} ({compared['precision']}) that equal those of "
        f"transformers with {compared['checkpoint']} in float32, token for token; "
        f"{_count(len(compared['pictures']))}, {versions}.",
        "",
        f"| task | {' | '.join(searches)} |",
        f"|---|{'---|' * len(searches)}",
    ]
    totals = {search: [0, 0] for search in searches}
    for task, found in tasks.items():
        for search, counts in found.items():
            totals[search][0] += counts["equal"]
            totals[search][1] += counts["answers"]
        cells = [f"{found[s]['equal']} of {found[s]['answers']}" for s in searches]
        lines.append(f"| `{task}` | {' | '.join(cells)} |")
    cells = [f"{equal} of {answers}" for equal, answers in totals.values()]
    lines.append(f"| all | {' | '.join(cells)} |")
    differences = [
        f"- {one['task']}, {one['picture']}, {one['search']}: from token "
        f"{one['first_difference']} on, {one['florence_onnx'][:_SHOWN]!r} and "
        f"{one['transformers'][:_SHOWN]!r}"
        for one in compared["differences"]
    ]
    return "\n".join([*lines, *([""] if differences else []), *differences])


def _count(pictures: int) -> str:
    return f"{pictures} picture{'s' * (pictures > 1)}"


def _search(beams: int) -> str:
    return "greedy" if beams == 1 else f"{beams} beams"
