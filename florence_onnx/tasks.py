"""Tasks of Florence-2: prompt, input and answer kind of each of the 15 tasks, in one table."""

import difflib
import re
import unicodedata
from collections.abc import Iterable
from enum import Enum

from florence_onnx.errors import TaskError


class InputKind(str, Enum):
    """Kinds of inputs of a task, in addition to the picture."""

    NONE = "none"
    TEXT = "text"
    REGION = "region"


class AnswerKind(str, Enum):
    """Kinds of answers, which decide the parsing. The values are the names in the reference."""

    TEXT = "pure_text"
    BOXES = "description_with_bboxes"
    PROPOSALS = "bboxes"
    GROUNDING = "phrase_grounding"
    POLYGONS = "polygons"
    BOXES_OR_POLYGONS = "description_with_bboxes_or_polygons"
    QUADRILATERALS = "ocr"

    @classmethod
    def parse(cls, name: "AnswerKind | str") -> "AnswerKind":
        """Finds the kind by name: ``"boxes"``, ``"BOXES"`` or the member itself.

        Raises:
            TaskError: for any other name, listing the valid ones.
        """
        if isinstance(name, cls):
            return name
        kinds = {kind.name.lower(): kind for kind in cls}
        kind = kinds.get(name.strip().lower()) if isinstance(name, str) else None
        if kind is None:
            raise TaskError(f"answer is {name!r}; it must be one of {', '.join(kinds)}")
        return kind


class Task(str, Enum):
    """Task, whose value is the tag in the reference, such as ``<OD>``."""

    prompt: str
    """Prompt, in which ``{input}`` stands for the text or the region's location tokens."""
    input_kind: InputKind
    """Input of the task, in addition to the picture."""
    answer_kind: AnswerKind
    """Kind of the answer."""

    def __new__(
        cls, tag: str, prompt: str, input_kind: InputKind, answer_kind: AnswerKind
    ) -> "Task":
        """Makes a task from a row of the table."""
        task = str.__new__(cls, tag)
        task._value_ = tag
        task.prompt = prompt
        task.input_kind = input_kind
        task.answer_kind = answer_kind
        return task

    OCR = ("<OCR>", "What is the text in the image?", InputKind.NONE, AnswerKind.TEXT)
    OCR_WITH_REGION = (
        "<OCR_WITH_REGION>",
        "What is the text in the image, with regions?",
        InputKind.NONE,
        AnswerKind.QUADRILATERALS,
    )
    CAPTION = ("<CAPTION>", "What does the image describe?", InputKind.NONE, AnswerKind.TEXT)
    DETAILED_CAPTION = (
        "<DETAILED_CAPTION>",
        "Describe in detail what is shown in the image.",
        InputKind.NONE,
        AnswerKind.TEXT,
    )
    MORE_DETAILED_CAPTION = (
        "<MORE_DETAILED_CAPTION>",
        "Describe with a paragraph what is shown in the image.",
        InputKind.NONE,
        AnswerKind.TEXT,
    )
    OD = (
        "<OD>",
        "Locate the objects with category name in the image.",
        InputKind.NONE,
        AnswerKind.BOXES,
    )
    DENSE_REGION_CAPTION = (
        "<DENSE_REGION_CAPTION>",
        "Locate the objects in the image, with their descriptions.",
        InputKind.NONE,
        AnswerKind.BOXES,
    )
    REGION_PROPOSAL = (
        "<REGION_PROPOSAL>",
        "Locate the region proposals in the image.",
        InputKind.NONE,
        AnswerKind.PROPOSALS,
    )
    CAPTION_TO_PHRASE_GROUNDING = (
        "<CAPTION_TO_PHRASE_GROUNDING>",
        "Locate the phrases in the caption: {input}",
        InputKind.TEXT,
        AnswerKind.GROUNDING,
    )
    REFERRING_EXPRESSION_SEGMENTATION = (
        "<REFERRING_EXPRESSION_SEGMENTATION>",
        "Locate {input} in the image with mask",
        InputKind.TEXT,
        AnswerKind.POLYGONS,
    )
    OPEN_VOCABULARY_DETECTION = (
        "<OPEN_VOCABULARY_DETECTION>",
        "Locate {input} in the image.",
        InputKind.TEXT,
        AnswerKind.BOXES_OR_POLYGONS,
    )
    REGION_TO_SEGMENTATION = (
        "<REGION_TO_SEGMENTATION>",
        "What is the polygon mask of region {input}",
        InputKind.REGION,
        AnswerKind.POLYGONS,
    )
    REGION_TO_CATEGORY = (
        "<REGION_TO_CATEGORY>",
        "What is the region {input}?",
        InputKind.REGION,
        AnswerKind.TEXT,
    )
    REGION_TO_DESCRIPTION = (
        "<REGION_TO_DESCRIPTION>",
        "What does the region {input} describe?",
        InputKind.REGION,
        AnswerKind.TEXT,
    )
    REGION_TO_OCR = (
        "<REGION_TO_OCR>",
        "What text is in the region {input}?",
        InputKind.REGION,
        AnswerKind.TEXT,
    )

    def __str__(self) -> str:
        """Returns the tag."""
        return str.__str__(self)

    @classmethod
    def parse(cls, task: "Task | str") -> "Task":
        """Finds the task by name: ``"od"``, ``"OD "``, ``"<OD>"`` or the member itself.

        Raises:
            TaskError: for any other name, listing the valid ones.
        """
        known = _BY_NAME.get(bare_name(task)) if isinstance(task, str) else None
        if known is None:
            raise _unknown(task)
        return known


_BY_NAME = {name.lower(): task for task in Task for name in (task.name, task.value)}
_NAMES = [task.name.lower() for task in Task]
_WORDS = {word for name in _NAMES for word in name.split("_")}

# Names and their longer words ("detection", "caption"): a bare word near one of them is taken for
# a mistyped task, not for a prompt.
_LOOKALIKES = {
    word: name
    for name in reversed(_NAMES)
    for word in (*name.split("_"), name)
    if len(word) > 5 or word == name
}


def resolve_task(task: Task | str) -> Task | str:
    """Finds the task that is meant; returns the prompt of a fine-tune unchanged.

    A string is a task if it is the name of a task, with or without angle brackets, in any case,
    with blanks around. Text that resembles a name (a word, a tag, or a few words without
    punctuation) is a typing error. Any other text, such as ``"<DocVQA>What is the date?"`` or
    ``"Describe the defect"``, is a prompt, whose answer is text.

    Raises:
        TaskError: for a mistyped name, an empty prompt, or a known tag with text around it.
    """
    if not isinstance(task, str) or not bare_name(task):
        raise _unknown(task)
    known = _BY_NAME.get(bare_name(task))
    if known is not None:
        return known
    _refuse_text_around(task)
    if _closest(task) is not None:
        raise _unknown(task)
    return task


def refuse_tags(text: str) -> None:
    """Refuses task tags in text for a prompt, as transformers' _construct_prompts does.

    Raises:
        TaskError: if the text holds a tag.
    """
    for task in Task:
        if task.value in text:
            raise _not_alone(task, text)


def _refuse_text_around(text: str) -> None:
    """Refuses text beside a tag in any case, or beside a name of several words."""
    bare = bare_name(text)
    first = re.split(r"[\s:]", bare, maxsplit=1)[0]
    for task in Task:
        if task.value.lower() in bare or (first == task.name.lower() and "_" in first):
            raise _not_alone(task, text)


def _not_alone(task: Task, text: str) -> TaskError:
    return TaskError(
        f"the tag {task} must stand alone, got {text!r}: pass the tag as the task, and "
        "its input, if it takes one, as text= or region="
    )


def _unknown(task: object) -> TaskError:
    closest = _closest(task) if isinstance(task, str) else None
    hint = f"did you mean {closest!r}? " if closest else ""
    return TaskError(
        f"{task!r} is not a task: {hint}Choose one of {', '.join(_NAMES)}; "
        "or give the words of a fine-tune as prompt= (--prompt)"
    )


def bare_name(text: str) -> str:
    """Turns to lower case; drops blanks at the ends, controls and zero-width characters."""
    normal = unicodedata.normalize("NFKC", text)
    return "".join(c for c in normal if c.isprintable() or c.isspace()).strip().lower()


def _closest(text: str) -> str | None:
    """Finds the task whose name ``text`` resembles; None for a prompt."""
    if re.fullmatch(r"[A-Z][a-z]+[.!?]", text):
        return None  # a word that is written as a sentence
    bare = bare_name(text)
    tag = re.match("<([^<>]+)>", bare)
    key = re.sub(r"[\W_]+", "_", tag[1] if tag else bare).strip("_")
    words = key.split("_")
    for name in _NAMES:
        is_beginning = len(words) > 1 and name.startswith(key)
        if is_beginning or key.replace("_", "") == name.replace("_", "") or _disguised(key, name):
            return name
    if tag or len(words) > 2:
        of_names = len(words) > 1 and all(word in _WORDS for word in words)
        return _near(key, _NAMES, 0 if of_names else 0.85)
    if re.fullmatch(r"\W*[\w-]+\W*", bare):
        cutoff = 0.7
    elif all(word.isalpha() for word in words) and "{" not in bare:
        cutoff = 0.82  # Two words; "detect cars" is no "detection".
    else:
        return None
    near = (_near(part, _LOOKALIKES, cutoff) for part in (key, *words))
    return next((_LOOKALIKES[word] for word in near if word), None)


def _near(word: str, names: Iterable[str], cutoff: float) -> str | None:
    return next(iter(difflib.get_close_matches(word, names, n=1, cutoff=cutoff)), None)


def _disguised(key: str, name: str) -> bool:
    """Tells whether ``key`` differs from ``name`` in letters of other alphabets or a zero only."""
    pattern = re.sub(r"[^a-z1-9_]", ".", key)
    return bool(re.search("[a-z]", key) and re.fullmatch(pattern, name))
