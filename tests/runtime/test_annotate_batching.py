"""How many questions of an annotation are answered together."""

import pytest

from florence_onnx.annotate.batching import LARGEST, Batches

IMAGE = 100
"""Tokens of a picture."""


def waiting(size: int | None, prompts: list[int]) -> Batches[int]:
    batches: Batches[int] = Batches(size, IMAGE)
    for number, tokens in enumerate(prompts):
        batches.add(number, IMAGE + tokens)
    return batches


def test_a_batch_is_full_when_its_size_is_reached() -> None:
    batches = waiting(3, [5, 5])
    assert not batches.is_full
    batches.add(2, IMAGE + 5)
    assert batches.is_full
    batches.add(3, IMAGE + 5)
    assert batches.take() == [0, 1, 2]
    assert not batches.is_full
    assert batches.take() == [3]
    assert batches.take() == []


@pytest.mark.parametrize(
    ("prompts", "taken"),
    [
        ([64] * 5, [4, 1]),  # The usual length: the size counts.
        ([228] * 5, [2, 2, 1]),  # 4 x 164 tokens hold two of 328.
        ([5, 5, 300, 5, 5], [2, 1, 2]),  # One long text would make all of them long.
        ([9000, 5], [1, 1]),  # Longer than all the room: alone.
        ([5, 9000], [1, 1]),
    ],
)
def test_long_texts_leave_room_for_fewer_questions(prompts: list[int], taken: list[int]) -> None:
    batches = waiting(4, prompts)
    found = []
    while batches:
        found.append(len(batches.take()))
    assert found == taken


def test_a_batch_without_room_for_the_next_question_is_full() -> None:
    batches = waiting(4, [228, 228])
    assert not batches.is_full
    batches.add(2, IMAGE + 1)
    assert batches.is_full


def sizes(batches: Batches[int], seconds: dict[int, float], count: int) -> list[int]:
    """The sizes of batches that take so many seconds per token."""
    found = []
    for _ in range(count):
        found.append(batches.size)
        tokens = [10] * batches.size
        batches.learn(seconds[batches.size] * sum(tokens), tokens)
    return found


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({1: 8, 2: 5, 4: 3, 8: 3}, [1, 1, 2, 2, 4, 4, 8, 8, 4, 4]),
        ({1: 1, 2: 1}, [1, 1, 2, 2, 1, 1]),
        ({1: 8, 2: 5, 4: 9}, [1, 1, 2, 2, 4, 4, 2, 2]),
    ],
)
def test_the_fastest_size_is_found(seconds: dict[int, float], expected: list[int]) -> None:
    assert sizes(waiting(None, []), seconds, len(expected)) == expected


def test_a_size_that_is_found_has_an_end() -> None:
    faster = {1 << power: 1 / (1 << power) for power in range(10)}
    assert sizes(waiting(None, []), faster, 20)[-1] == LARGEST


def test_one_slow_batch_does_not_decide() -> None:
    batches = waiting(None, [])
    for seconds in (9.0, 1.0, 9.0, 0.5):  # Of one question, then of two.
        batches.learn(seconds * 10 * batches.size, [10] * batches.size)
    assert batches.size == 4


def test_a_batch_that_is_not_full_teaches_nothing() -> None:
    batches = waiting(None, [])
    batches.learn(1, [10])
    batches.learn(1, [10])
    assert batches.size == 2
    for _ in range(5):
        batches.learn(100, [10])
    assert batches.size == 2
    batches.learn(1, [])
    assert batches.size == 2


def test_a_size_that_is_given_stays() -> None:
    assert sizes(waiting(8, []), {8: 1.0}, 5) == [8] * 5
