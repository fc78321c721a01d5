"""Options that suit each task, for callers who want other ones than the checkpoint's."""

from collections.abc import Mapping

from florence_onnx.generation.options import GenerationOptions
from florence_onnx.tasks import AnswerKind, Task

_LENGTHS = {Task.CAPTION: 64, Task.DETAILED_CAPTION: 128, Task.MORE_DETAILED_CAPTION: 256}
_READ = (Task.OCR, Task.REGION_TO_OCR)


def _options(task: Task) -> GenerationOptions:
    if task.answer_kind is not AnswerKind.TEXT:
        return {"no_repeat_ngram_size": 0, "constrain": True}
    if task in _READ:
        return {"no_repeat_ngram_size": 0}
    return {"no_repeat_ngram_size": 3, "max_new_tokens": _LENGTHS.get(task, 64)}


TASK_OPTIONS: Mapping[Task, GenerationOptions] = {task: _options(task) for task in Task}
"""Task -> options, for ``model(image, task, **TASK_OPTIONS[task])``; without, the checkpoint's own.

Captions do not repeat three tokens, which ends loops, and have a length that captions seldom
reach. Where an answer repeats itself rightly (labels, coordinates, text that was read), no
repetition is banned, which would corrupt it; lists are kept in order by their grammar instead, and
may be as long as the checkpoint allows.
"""
