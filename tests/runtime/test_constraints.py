"""Answers that keep the grammar of their task, whatever the model would rather say."""

import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import florence_onnx
from florence_onnx import (
    TASK_OPTIONS,
    Florence2,
    GenerationError,
    GenerationOptions,
    InputError,
    Request,
    Task,
    TaskError,
)
from florence_onnx.cli.program import main
from florence_onnx.constraining import check_rules
from florence_onnx.generation.grammar import Grammar, has_grammar
from florence_onnx.generation.labels import LabelTrie, caption_labels, known_labels
from florence_onnx.generation.search import search
from florence_onnx.tasks import AnswerKind
from florence_onnx.token_kinds import Kind, kinds_of
from florence_onnx.tokenizer import Tokenizer
from tests.runtime.test_search import EOS, Model, Sequence, ToySteps, policy

TINY = Path(__file__).parents[1] / "fixtures" / "tiny"
WORDS = ["car", " car", "big", " big", "dog", "é", " ", "\n", "x<", "a\nb", "<od>", "<mask>"]
TEXTS = ["<s>", "<pad>", "</s>", *WORDS, "<poly>", "<sep>", "</poly>"]
FIRST = len(TEXTS)
LOCATIONS = np.arange(FIRST, FIRST + 20)
VOCABULARY = dict(enumerate([*TEXTS, *(f"<loc_{i}>" for i in range(20))]))
KINDS = kinds_of(VOCABULARY, LOCATIONS)
KINDS[EOS] = Kind.END
SIZE = (100, 100)
TASKS = {task.answer_kind: task for task in Task if has_grammar(task.answer_kind)}
BOX, QUAD = r"(?:<loc_\d+>){4}", r"(?:<loc_\d+>){8}"
OUTLINES = r"(?:<loc_\d+><loc_\d+>){3,}(?:<sep>(?:<loc_\d+><loc_\d+>){3,})*"
POLYGONS = f"(?:<poly>{OUTLINES}</poly>)"
LABEL = r"[^\S\n]*[^<\s][^<\n]*"
ANY = r"(?!<loc_|<poly>|<sep>|</poly>)(?:.|\n)"
LINE = r"(?:(?!<loc_)(?:.|\n))*(?!<loc_)\S[^\S\n]*"
WHOLE = {
    AnswerKind.BOXES: f"(?:{LABEL}(?:{BOX})+)*[^<\n]*",
    AnswerKind.GROUNDING: f"(?:{LABEL}(?:{BOX})+)*[^<\n]*",
    AnswerKind.BOXES_OR_POLYGONS: (
        f"(?:{LABEL}(?:{BOX})+)*[^<\n]*|(?:{LABEL}(?:{POLYGONS}\\s*(?!\\s))+)*[^<\n]*"
    ),
    AnswerKind.PROPOSALS: f"(?:(?!<loc_)(?:.|\n)|{BOX})*",
    AnswerKind.QUADRILATERALS: f"(?:{LINE}{QUAD})*(?:(?!<loc_)(?:.|\n))*",
    AnswerKind.POLYGONS: f"(?:{ANY}|{OUTLINES}(?!<loc_))*|(?:{ANY}|{POLYGONS})*",
}
"""Grammars once more, as regular expressions over the text without special tokens. A text matches
in one way at most: to rule out many ways would take exponential time."""


def text_of(ids: Sequence) -> str:
    text = "".join(VOCABULARY[token] for token in ids[1:])
    return re.sub("<s>|</s>|<pad>", "", text)


def wild_model(seed: int, end: float = 0.0) -> Model:
    """Far from uniform: what it wants most changes at every step."""

    def model(request: int, sequence: Sequence) -> npt.NDArray[np.float64]:
        logits = np.random.default_rng((seed, request, *sequence)).normal(0, 6, len(VOCABULARY))
        logits[EOS] += end
        return np.asarray(logits - np.logaddexp.reduce(logits))

    return model


def scripted_model(text: str, otherwise: float = -8.0) -> Model:
    """Says the text, one token after another."""
    ids = spell(text)

    def model(request: int, sequence: Sequence) -> npt.NDArray[np.float64]:
        logits = np.full(len(VOCABULARY), otherwise) - np.arange(len(VOCABULARY)) * 1e-3
        place = len(sequence) - 1
        logits[ids[place] if place < len(ids) else EOS] = 0.0
        return np.asarray(logits - np.logaddexp.reduce(logits))

    return model


def spell(text: str) -> list[int]:
    pattern = "|".join(re.escape(t) for t in sorted(VOCABULARY.values(), key=len, reverse=True))
    ids = {spelled: token for token, spelled in VOCABULARY.items()}
    return [ids[part] for part in re.findall(pattern, text)]


def locate(*bins: int) -> str:
    return "".join(f"<loc_{i}>" for i in bins)


ONE, TWO = locate(1, 2, 3, 4), locate(5, 6, 7, 8)


@pytest.mark.parametrize("kind", TASKS, ids=lambda kind: kind.name.lower())
@pytest.mark.parametrize("beams", [1, 3])
def test_wild_answers_keep_the_grammar(kind: AnswerKind, beams: int) -> None:
    """With any n-gram rule, forced tokens and length: no group is incomplete or without label."""
    draw = random.Random(f"{kind.name} {beams}")
    broken = located = 0
    for seed in range(12):
        options: dict[str, Any] = {
            "num_beams": beams,
            "max_new_tokens": draw.randint(2, 40),
            "no_repeat_ngram_size": draw.choice([0, 1, 2, 3]),
            "forced_bos_token_id": draw.choice([0, None]),
            "forced_eos_token_id": draw.choice([EOS, None]),
            "repetition_penalty": draw.choice([1.0, 1.0, 1.3]),
            "early_stopping": draw.choice([True, False]),
        }
        chosen = policy(**options)
        model, count = wild_model(seed, end=draw.choice([-6.0, 0.0])), 8
        found = search(ToySteps(model), count, chosen, (), [Grammar(kind, KINDS)] * count)
        free = search(ToySteps(model), count, chosen)
        for kept, loose in zip(found, free, strict=True):
            text = text_of(kept[0].token_ids)
            assert re.fullmatch(WHOLE[kind], text), (text, options)
            located += "<loc_" in text
            broken += not re.fullmatch(WHOLE[kind], text_of(loose[0].token_ids))
    assert located > 15
    assert broken > 40, "without constraints most answers break the grammar"


KEEPING = {
    AnswerKind.BOXES: ["", f"car{ONE}", f"big car{ONE}{TWO}dog{ONE}", f"é big{ONE}car"],
    AnswerKind.GROUNDING: [f"big car{ONE}dog{TWO}"],
    AnswerKind.BOXES_OR_POLYGONS: [
        f"car{ONE}car{TWO}",
        f"car<poly>{ONE}{TWO}</poly>",
        f"car<poly>{ONE}{TWO}<sep>{TWO}{ONE}</poly><poly>{ONE}{TWO}</poly>dog<poly>{ONE}{TWO}</poly>",
    ],
    AnswerKind.PROPOSALS: [ONE, ONE + TWO, f"car{ONE}"],
    AnswerKind.QUADRILATERALS: [f"car{ONE}{TWO}", f"car dog{ONE}{TWO}x<{TWO}{ONE}"],
    AnswerKind.POLYGONS: [
        ONE + TWO,
        f"{ONE}{TWO}<sep>{TWO}{ONE}",
        f"<poly>{ONE}{TWO}</poly><poly>{TWO}{ONE}<sep>{ONE}{TWO}</poly>",
    ],
}


@pytest.mark.parametrize(
    ("kind", "text"), [(kind, text) for kind, texts in KEEPING.items() for text in texts]
)
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("starts", ["", "<s>", "<s><s>"])
def test_an_answer_that_keeps_the_rules_is_unchanged(
    kind: AnswerKind, text: str, beams: int, starts: str
) -> None:
    chosen = policy(num_beams=beams, max_new_tokens=50, early_stopping=True)
    model = scripted_model(starts + text)
    free = search(ToySteps(model), 1, chosen)
    assert text_of(free[0][0].token_ids) == text
    kept = search(ToySteps(model), 1, chosen, (), [Grammar(kind, KINDS)])
    assert kept[0][0] == free[0][0]


def test_free_requests_of_a_batch_stay_free() -> None:
    model = wild_model(3)
    chosen = policy(num_beams=3, max_new_tokens=20)
    grammars = [Grammar(AnswerKind.BOXES, KINDS), None]
    mixed = search(ToySteps(model), 2, chosen, (), grammars)
    assert mixed[1] == search(ToySteps(model), 2, chosen)[1]
    alone = search(ToySteps(model), 1, chosen, (), grammars[:1])
    assert mixed[0] == alone[0]


def test_no_logits_are_read_where_the_best_tokens_suffice(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = ToySteps(scripted_model(f"car{ONE}"))
    run = steps.__call__

    def without_logits(*arguments: Any) -> Any:
        scores = run(*arguments)
        monkeypatch.setattr(scores, "logits", None)
        return scores

    (found,) = search(
        without_logits, 1, policy(max_new_tokens=12), (), [Grammar(AnswerKind.BOXES, KINDS)]
    )
    assert text_of(found[0].token_ids) == f"car{ONE}"


# Labels


def trie(*labels: str) -> LabelTrie:
    return LabelTrie((spell(label), [len(spell(label))]) for label in labels)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize(
    "kind", [AnswerKind.BOXES, AnswerKind.GROUNDING, AnswerKind.BOXES_OR_POLYGONS]
)
def test_only_known_labels_come(kind: AnswerKind, beams: int) -> None:
    labels = ["car", "big dog", "big car é car", " big"]
    pattern = "|".join(labels)
    boxes = f"(?:(?:{pattern})(?:{BOX})+)*"
    outlined = f"(?:(?:{pattern}){POLYGONS}+)*"
    located = 0
    for seed in range(12):
        most = 5 + 3 * seed
        chosen = policy(num_beams=beams, max_new_tokens=most, no_repeat_ngram_size=seed % 4)
        grammar = Grammar(kind, KINDS, trie(*labels))
        for found in search(ToySteps(wild_model(seed, -3)), 6, chosen, (), [grammar] * 6):
            text = text_of(found[0].token_ids)
            assert re.fullmatch(f"{boxes}|{outlined}", text), (text, chosen)
            located += "<loc_" in text
    assert located > 20


def test_a_ban_that_leaves_nothing_is_lifted() -> None:
    """The n-gram rule forbids to name a thing of three tokens twice."""
    model = scripted_model(f"big car é{ONE}big car é{TWO}")
    chosen = policy(max_new_tokens=30, no_repeat_ngram_size=3)
    grammar = Grammar(AnswerKind.BOXES, KINDS, trie("big car é"))
    (found,) = search(ToySteps(model), 1, chosen, (), [grammar])
    assert text_of(found[0].token_ids) == f"big car é{ONE}big car é{TWO}"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(TINY / "tokenizer.json")


def accepts(labels: LabelTrie, tokenizer: Tokenizer, text: str) -> bool:
    node = 0
    for token in tokenizer.encode(text)[1:-1]:
        node = labels.follow(node, token)
    return labels.is_whole(node)


def test_labels_come_with_and_without_a_space_before(tokenizer: Tokenizer) -> None:
    labels = known_labels(tokenizer, ["a green car", "dog"])
    for text in ("a green car", " a green car", "dog", " dog"):
        assert accepts(labels, tokenizer, text)
    for text in ("a green", "green car", "dogs", "", "cat"):
        assert not accepts(labels, tokenizer, text)


def test_labels_of_grounding_are_the_words_of_the_caption(tokenizer: Tokenizer) -> None:
    labels = caption_labels(tokenizer, "A green car, parked by an old wall.")
    for text in ("A green car", "a green car", "green", "an old wall", "An old wall", " old wall"):
        assert accepts(labels, tokenizer, text), text
    for text in ("a red car", "a car", "wall old", "gree", "ar", ""):
        assert not accepts(labels, tokenizer, text), text


@pytest.mark.parametrize("caption", ["!", "ß", "中文 字", " a  b ", "é", "a" * 60])
def test_any_caption_has_labels(tokenizer: Tokenizer, caption: str) -> None:
    assert accepts(caption_labels(tokenizer, caption), tokenizer, caption.strip())


# Short room

TWO_CARS = f"big car{ONE}{TWO}"


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize(
    ("kind", "text", "rules", "room", "kept"),
    [
        (AnswerKind.BOXES, f"{TWO_CARS}big dog{ONE}", {}, (10, 17), TWO_CARS),
        (AnswerKind.BOXES, f"{TWO_CARS}big dog{ONE}", {"labels": True}, (10, 17), TWO_CARS),
        (AnswerKind.GROUNDING, f"{TWO_CARS}big dog{ONE}", {"labels": True}, (10, 17), TWO_CARS),
        (AnswerKind.BOXES, f"{TWO_CARS}big dog{ONE}", {"longest_text": 4}, (10, 17), TWO_CARS),
        (AnswerKind.BOXES, f"big car{ONE}{TWO}{ONE}", {"labels": True}, (10, 14), TWO_CARS),
        (AnswerKind.PROPOSALS, ONE + TWO + ONE, {}, (8, 12), ONE + TWO),
        (AnswerKind.QUADRILATERALS, f"big{ONE}{TWO}dog{TWO}{ONE}", {}, (9, 18), f"big{ONE}{TWO}"),
        (AnswerKind.POLYGONS, f"{ONE}{TWO}<sep>{TWO}{ONE}", {}, (8, 15), ONE + TWO),
        (
            AnswerKind.BOXES_OR_POLYGONS,
            f"car<poly>{ONE}{TWO}</poly>dog<poly>{TWO}{ONE}</poly>",
            {"labels": True},
            (11, 20),
            f"car<poly>{ONE}{TWO}</poly>",
        ),
    ],
)
def test_an_answer_that_lacks_room_ends_with_its_last_whole_group(
    kind: AnswerKind, text: str, rules: dict[str, Any], room: tuple[int, int], kept: str, beams: int
) -> None:
    """And begins none that the model does not mean; only letters of the next label may follow."""
    if "labels" in rules:
        rules = {"labels": trie("car", "big car", "big dog", "dog")}
    # The next best token is a location: the first group behind an old label.
    model = likes_locations(text)
    for most in range(*room):
        chosen = policy(num_beams=beams, max_new_tokens=most, early_stopping=True)
        (found,) = search(ToySteps(model), 1, chosen, (), [Grammar(kind, KINDS, **rules)])
        said = text_of(found[0].token_ids)
        assert said.startswith(kept), (most, said)
        rest = said[len(kept) :]
        assert "<" not in rest and text[len(kept) :].startswith(rest), (most, said)
        assert not (rest and "labels" in rules), (most, said)


def likes_locations(text: str) -> Model:
    """Says the text; the tokens that come next in probability are locations."""
    scripted = scripted_model(text)

    def model(request: int, sequence: Sequence) -> npt.NDArray[np.float64]:
        logits = np.array(scripted(request, sequence))
        logits[LOCATIONS] += 3 * (logits[LOCATIONS] < -2)
        return np.asarray(logits - np.logaddexp.reduce(logits))

    return model


# The end held back


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("beams", [1, 3])
def test_the_end_is_held_back_until_there_are_enough(count: int, beams: int) -> None:
    model = wild_model(1, end=30)
    chosen = policy(num_beams=beams, max_new_tokens=60, recall=count)
    grammar = Grammar(AnswerKind.BOXES, KINDS, longest_text=3)
    found = search(ToySteps(model), 4, chosen, (), [grammar] * 4)
    boxes = [len(re.findall(BOX, text_of(best.token_ids))) for best, *_ in found]
    assert boxes == [count] * 4


def test_the_end_is_held_back_until_it_is_likely() -> None:
    """Two boxes come after an end of probability 1/3; a lower threshold takes that end."""
    rest = spell(f"{TWO}car{ONE}")

    def model(request: int, sequence: Sequence) -> npt.NDArray[np.float64]:
        text, first = text_of(sequence), spell(f"car{ONE}")
        place = len(sequence) - 1
        probabilities = np.full(len(VOCABULARY), 1e-6)
        if text == f"car{ONE}":
            probabilities[[EOS, rest[0]]] = 0.67, 0.33
        elif place < len(first) + len(rest):
            probabilities[[*first, *rest][place]] = 1
        else:
            probabilities[EOS] = 1
        return np.log(probabilities / probabilities.sum())

    texts = []
    for recall in (None, 0.5, 0.9):
        grammars = [] if recall is None else [Grammar(AnswerKind.BOXES, KINDS)]
        (found,) = search(
            ToySteps(model), 1, policy(max_new_tokens=30, recall=recall), (), grammars
        )
        texts.append(text_of(found[0].token_ids))
    assert texts == [f"car{ONE}", f"car{ONE}", f"car{ONE}{TWO}car{ONE}"]


def test_an_answer_ends_where_nothing_else_has_room() -> None:
    chosen = policy(max_new_tokens=7, recall=9, forced_eos_token_id=None)
    grammar = Grammar(AnswerKind.PROPOSALS, KINDS, longest_text=0)
    (found,) = search(ToySteps(wild_model(2)), 1, chosen, (), [grammar])
    assert re.fullmatch(BOX, text_of(found[0].token_ids))
    assert found[0].token_ids[-1] == EOS


# Models


@pytest.fixture(scope="module")
def demo() -> Florence2:
    return Florence2.load("demo", threads=1)


SCENE = Path(florence_onnx.__file__).parent / "page" / "examples" / "scene-1304.png"
PICTURE = np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)


@pytest.mark.parametrize("beams", [1, 3])
def test_a_model_keeps_to_labels(demo: Florence2, beams: int) -> None:
    labels = ["red circle", "blue square"]
    for number in (3, 0.9):
        result = demo(PICTURE, "od", labels=labels, recall=number, num_beams=beams)
        assert result.detections
        assert {found.label for found in result.detections} <= set(labels)


@pytest.mark.parametrize("labels", [["car", "person"], ["it's"], ["日本"]])
@pytest.mark.parametrize("recall", [5, 0.9])
def test_labels_that_the_model_does_not_know_are_located_all_the_same(
    demo: Florence2, labels: list[str], recall: float
) -> None:
    """The demo would rather begin again, with <s>, as long as it is let."""
    result = demo(SCENE, "od", labels=labels, recall=recall)
    assert result.detections and not result.truncated
    assert {found.label for found in result.detections} <= {*labels}


@pytest.mark.parametrize(
    "rules", [{"constrain": True}, {"labels": ["red circle", "blue square"]}, {"recall": 30}]
)
@pytest.mark.parametrize("beams", [1, 3])
def test_an_answer_that_lacked_room_is_truncated(
    demo: Florence2, rules: GenerationOptions, beams: int
) -> None:
    """Although a rule ended the answer, and not the limit itself."""
    for most in (4, 10, 13, 19):
        options: GenerationOptions = {**rules, "max_new_tokens": most, "num_beams": beams}
        assert demo(SCENE, "od", **options).truncated, most
    if "recall" not in rules:
        options = {**rules, "num_beams": beams}
        assert not demo(SCENE, "od", **options).truncated


def test_a_mixed_batch_is_answered_as_one_by_one(demo: Florence2) -> None:
    texts = {Task.CAPTION_TO_PHRASE_GROUNDING: "A red circle.", Task.OPEN_VOCABULARY_DETECTION: "x"}
    tasks = [Task.OD, Task.CAPTION, Task.OCR_WITH_REGION, Task.REGION_PROPOSAL, *texts]
    requests = [Request(PICTURE, task, texts.get(task)) for task in tasks]
    together = demo.run(requests, constrain=True, max_new_tokens=20)
    alone = [
        demo(PICTURE, task, texts.get(task), constrain=True, max_new_tokens=20) for task in tasks
    ]
    assert [one.token_ids for one in together] == [one.token_ids for one in alone]


def test_min_score_leaves_out_what_scores_below(demo: Florence2) -> None:
    every = demo(PICTURE, "od", recall=4)
    scores = [found.scores.score for found in every.detections if found.scores]
    assert len(scores) > 1
    least = sorted(scores)[1]
    kept = demo(PICTURE, "od", recall=4, min_score=least)
    assert kept.detections == tuple(
        found for found in every.detections if found.scores and found.scores.score >= least
    )
    assert len(kept.detections) < len(every.detections)
    assert kept.generated == every.generated
    mixed = [Request(PICTURE, "caption"), Request(PICTURE, "od")]
    text, boxes = demo.run(mixed, min_score=1.0)
    assert text.text and not boxes.detections


# What is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": []}, "at least one label"),
        ({"labels": "car"}, "a list of labels"),
        ({"labels": ["car", " "]}, "labels of up to"),
        ({"labels": ["a<loc_1>"]}, "without <"),
        ({"labels": ["a\nb"]}, "line breaks"),
        ({"labels": [3]}, "labels of up to"),
        ({"labels": ["\ud800"]}, "labels of up to"),
        ({"min_score": 1.1}, "a number from 0 to 1"),
        ({"min_score": float("nan")}, "a number from 0 to 1"),
        ({"min_score": True}, "a number from 0 to 1"),
        ({"constrain": 1}, "True or False"),
        ({"recall": 0}, "a probability below 1, or a number of boxes"),
        ({"recall": 1.5}, "a probability below 1, or a number of boxes"),
        ({"recall": -3}, "a probability below 1, or a number of boxes"),
        ({"recall": "many"}, "a probability below 1, or a number of boxes"),
    ],
)
def test_wrong_rules_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(GenerationError, match=message):
        policy(**options)


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize("options", [{"labels": ["car"]}, {"recall": 3}], ids=["labels", "recall"])
def test_rules_without_a_meaning_for_a_task_are_refused(task: Task, options: Any) -> None:
    named = {AnswerKind.BOXES, AnswerKind.BOXES_OR_POLYGONS}
    fits = named | ({AnswerKind.GROUNDING} if "labels" in options else {AnswerKind.PROPOSALS})
    if task.answer_kind in fits:
        check_rules(task, task.answer_kind, policy(**options))
    else:
        with pytest.raises(TaskError, match=f"{next(iter(options))}= is for tasks that .* not for"):
            check_rules(task, task.answer_kind, policy(**options))


@pytest.mark.parametrize("task", Task)
def test_every_task_has_options_that_the_docs_list(task: Task, demo: Florence2) -> None:
    options = TASK_OPTIONS[task]
    demo.policy.replace(**options)
    row = [
        task.name.lower(),
        str(options["no_repeat_ngram_size"] or "all may"),
        str(options.get("max_new_tokens", "as the checkpoint")),
        "kept" if options.get("constrain") else "free",
    ]
    page = (Path(__file__).parents[2] / "docs" / "answers.md").read_text(encoding="utf-8")
    assert f"| {' | '.join(row)} |\n" in page


@pytest.mark.parametrize("image", [PICTURE, [PICTURE], []], ids=["one", "list", "none"])
@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("caption", {"labels": ["car"]}, "labels= is for tasks .*, not for <CAPTION>"),
        ("caption", {"recall": 3}, "recall= is for tasks .*, not for <CAPTION>"),
        ("ocr", {"min_score": 0.1}, "min_score= is for tasks that locate things .* not for <OCR>"),
        ("od", {"min_score": 2}, "a number from 0 to 1"),
    ],
)
def test_the_model_refuses_rules_without_a_meaning(
    demo: Florence2, image: Any, task: str, options: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        demo(image, task, **options)


def test_rules_for_tiles_of_text_name_the_task_that_was_asked(demo: Florence2) -> None:
    with pytest.raises(TaskError, match=r"labels= .* not for <OCR>$"):
        demo(PICTURE, "ocr", tiles=(2, 1), labels=["a"])
    encoded = demo.encode(PICTURE, tiles=(2, 1))
    with pytest.raises(TaskError, match=r"recall= .* not for <OCR>$"):
        demo.answer(demo.prepare(Request(encoded, "ocr")), recall=3)
    every, none = (demo(encoded, "ocr", min_score=least).text for least in (0.0, 1.0))
    assert every and not none, "text is asked for with places, which have scores"


@pytest.mark.parametrize("word", ["image", "a group", "it"])
def test_labels_that_grounding_drops_are_refused(demo: Florence2, word: str) -> None:
    caption = f"{word} shows a red circle"
    with pytest.raises(TaskError, match=f"labels= has {word!r}: <CAPTION_TO_PHRASE_GROUNDING>"):
        demo(PICTURE, "caption_to_phrase_grounding", caption, labels=["circle", word])
    assert demo(PICTURE, "od", labels=["circle", word], recall=1).detections


def test_the_command_line_has_them_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], demo: Florence2
) -> None:
    photo = tmp_path / "photo.png"
    Image.fromarray(PICTURE).save(photo)
    command = ["run", str(photo), "--model", "demo", "--json", "--threads", "1"]
    rules = ["--labels", "red circle, blue square", "--recall", "3", "--min-score", "0.001"]
    assert main([*command, "--task", "od", "--constrain", *rules]) == 0
    record = json.loads(capsys.readouterr().out)
    labels = ["red circle", "blue square"]
    options: GenerationOptions = {"labels": labels, "recall": 3, "min_score": 0.001}
    expected = demo(str(photo), "od", **options)
    assert record == expected.record(str(photo))
    assert all(found["scores"]["score"] >= 0.001 for found in record["detections"])
    assert main([*command, "--task", "od", "--recall", "1.0"]) != 0
    assert "recall" in capsys.readouterr().err
    assert main([*command, "--task", "caption", "--max-new-tokens", "2"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["truncated"] and "--max-new-tokens" not in err
    command.remove("--json")
    assert main([*command, "--task", "caption", "--max-new-tokens", "2"]) == 0
    assert "photo.png: the limit of the length (--max-new-tokens) cut" in capsys.readouterr().err
    assert main([*command, "--task", "caption", "--labels", "car"]) != 0
    assert "labels= is for tasks" in capsys.readouterr().err
