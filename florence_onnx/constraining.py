"""Grammars of a batch, from its tasks, labels and captions."""

from collections.abc import Callable, Sequence

import numpy as np

from florence_onnx.errors import TaskError
from florence_onnx.generation.grammar import Grammar, has_grammar, has_labels, is_list, longest_text
from florence_onnx.generation.labels import LabelTrie, caption_labels, known_labels
from florence_onnx.generation.policy import GenerationPolicy
from florence_onnx.generation.rules import AnswerRules
from florence_onnx.locating import UNGROUNDED_WORDS
from florence_onnx.requests import Prepared
from florence_onnx.tasks import AnswerKind, Task
from florence_onnx.token_kinds import Kind, Kinds
from florence_onnx.tokenizer import Tokenizer


def check_rules(asked: Task | str, kind: AnswerKind, policy: GenerationPolicy) -> None:
    """Refuses rules that have no meaning for a task.

    Raises:
        TaskError: Labels for a task that names nothing, labels that grounding leaves out of every
            answer, or ``recall`` for a task that lists no boxes.
    """
    for name, is_given, has_meaning, where in (
        ("labels", policy.labels is not None, has_labels, "label what they locate"),
        ("recall", policy.recall is not None, is_list, "list boxes"),
    ):
        if is_given and not has_meaning(kind):
            raise _meaningless(name, has_meaning, where, asked)
    ignored = UNGROUNDED_WORDS & {*(policy.labels or ())}
    if kind is AnswerKind.GROUNDING and ignored:
        raise TaskError(
            f"labels= has {', '.join(map(repr, sorted(ignored)))}: {asked} leaves such words out, "
            "as the reference does; name things"
        )


def check_min_score(asked: Sequence[tuple[Task | str, AnswerKind]], policy: AnswerRules) -> None:
    """Refuses ``min_score`` where it has no meaning for any of the tasks.

    Raises:
        TaskError: No task locates anything.
    """
    if policy.min_score > 0 and asked and not any(has_grammar(kind) for _, kind in asked):
        raise _meaningless("min_score", has_grammar, "locate things", asked[0][0])


def _meaningless(
    rule: str, has_meaning: Callable[[AnswerKind], bool], where: str, asked: Task | str
) -> TaskError:
    tasks = ", ".join(task.name.lower() for task in Task if has_meaning(task.answer_kind))
    return TaskError(f"{rule}= is for tasks that {where} ({tasks}), not for {asked}")


def grammars(
    tokenizer: Tokenizer, batch: Sequence[Prepared], policy: GenerationPolicy
) -> list[Grammar | None]:
    """Makes the grammar of every request, None where answers are free; empty without any rule.

    Raises:
        TaskError: A rule has no meaning for a request's task.
    """
    for prepared in batch:
        check_rules(prepared.asked, prepared.answer_kind, policy)
    if not policy.has_grammar:
        return []
    kinds = _kinds(tokenizer, policy)
    labels = None if policy.labels is None else known_labels(tokenizer, policy.labels)
    shared: Grammar | None = None
    found: list[Grammar | None] = []
    for prepared in batch:
        kind = prepared.answer_kind
        if not has_grammar(kind):
            found.append(None)
            continue
        trie: LabelTrie | None = labels
        if trie is None and kind is AnswerKind.GROUNDING and prepared.text is not None:
            trie = caption_labels(tokenizer, prepared.text)
        longest = None if policy.recall is None else longest_text(kind)
        shared = Grammar(kind, kinds, trie, longest, {} if shared is None else shared.sets)
        found.append(shared)
    return found


def _kinds(tokenizer: Tokenizer, policy: GenerationPolicy) -> Kinds:
    """Kind of every token of the model, which may have more tokens than the tokenizer."""
    known = tokenizer.kinds
    kinds = np.full(max(policy.vocab_size, len(known)), Kind.UNSEEN, dtype=np.int8)
    kinds[: len(known)] = known
    kinds[list(policy.ends)] = Kind.END
    return kinds
