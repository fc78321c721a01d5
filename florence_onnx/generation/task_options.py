"""Options for each task, for callers who want other options than the checkpoint's."""

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
"""Task -> options, for ``model(image, task, **TASK_OPTIONS[task])``.

Captions do not repeat three tokens, which ends loops, and have a limit that captions seldom reach.
Right answers with labels, coordinates or read text repeat themselves, so a ban on repetition would
corrupt such answers. Lists have their grammar instead, and may be as long as the checkpoint allows.
"""
