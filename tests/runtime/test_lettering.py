"""Fonts, places and colours of labels on drawings."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from florence_onnx import Detection, DetectionScores, Result, parse_answer
from florence_onnx.cli.program import main
from florence_onnx.drawing import draw, fonts
from florence_onnx.drawing.fonts import PLAIN, Face, faces_for, has_glyph, named_face
from florence_onnx.drawing.lettering import Lettering
from florence_onnx.drawing.picture import _COLOURS
from florence_onnx.drawing.places import Rectangle, gap, place_plates
from florence_onnx.errors import InputError
from florence_onnx.tasks import AnswerKind
from tests.helpers.tiny import picture

ALONE = "\u4e2d"
"""A character that the font inside Pillow lacks."""


def answer(
    *detections: Detection,
    size: tuple[int, int] = (200, 100),
    kind: AnswerKind = AnswerKind.BOXES,
) -> Result:
    empty = parse_answer("", "<OD>", size)
    return Result(
        task=empty.task,
        answer_kind=kind,
        text="",
        detections=detections,
        generated="",
        token_ids=(),
        score=None,
        image_size=size,
    )


def drawn(result: Result, font: Path | None = None) -> np.ndarray:
    width, height = result.image_size
    grey = np.full((height, width, 3), 128, np.uint8)
    return np.asarray(draw(grey, result, font)).astype(int)


# Fonts


@pytest.fixture
def no_fonts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A machine without fontconfig, whose fonts are in an empty folder."""
    folder = tmp_path / "fonts"
    folder.mkdir()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(fonts, "_folders", lambda: [tmp_path / "none", folder])
    fonts._find.cache_clear()
    yield folder
    fonts._find.cache_clear()


@pytest.fixture(scope="session")
def cyrillic() -> Path:
    """A font of this machine."""
    found = fonts._find("я")
    if found is None or found.file is None:
        pytest.skip("no font of this machine has Cyrillic letters")
    return Path(found.file)


def test_the_font_inside_pillow_is_used_where_it_can_be(no_fonts: Path) -> None:
    assert faces_for(["a plain label, 0.93 …?"], None) == [PLAIN]


def test_a_character_that_no_font_has_is_told_and_no_empty_box(
    no_fonts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    box = (20.0, 40.0, 120.0, 90.0)
    result = answer(Detection(label=f"a{ALONE}{ALONE} \u0915\u093f", box=box))
    missing = drawn(result)
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert f"no font of this machine has \u0915\u093f{ALONE}, drawn as ?; name one" in line
    assert (missing == drawn(answer(Detection(label="a?? ?", box=box)))).all()
    assert capsys.readouterr().err == ""
    drawn(answer(Detection(label="".join(map(chr, range(0x4E00, 0x4E00 + 50))), box=box)))
    assert "\u4e13 and 30 other characters, drawn as ?" in capsys.readouterr().err


def test_a_font_is_found_by_fontconfig(cyrillic: Path) -> None:
    faces = faces_for(["кошка"], None)
    assert all(any(has_glyph(face, one) for face in faces) for one in "кошка")
    assert not has_glyph(PLAIN, "я")


def test_a_font_is_found_in_the_folders_of_fonts(no_fonts: Path, cyrillic: Path) -> None:
    (no_fonts / "broken.ttf").write_bytes(b"no font")
    (no_fonts / "deep").mkdir()
    shutil.copy(cyrillic, no_fonts / "deep" / "found.ttf")
    assert faces_for(["кошка"], None) == [PLAIN, Face(str(no_fonts / "deep" / "found.ttf"))]


def test_the_named_font_is_taken_first(
    no_fonts: Path, cyrillic: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = answer(Detection(label="кошка", box=(20.0, 40.0, 120.0, 90.0)))
    named = drawn(result, cyrillic)
    assert capsys.readouterr().err == ""
    assert (named != drawn(result)).any()
    assert "has акош" in capsys.readouterr().err
    plain = answer(Detection(label="cat", box=(20.0, 40.0, 120.0, 90.0)))
    assert (drawn(plain, cyrillic) != drawn(plain)).any()


def test_a_label_of_two_scripts_is_written_in_two_fonts(cyrillic: Path) -> None:
    letters = Lettering([PLAIN, Face(str(cyrillic))], 20)
    assert letters.size("cat")[0] < letters.size("cat кошка")[0]
    assert letters._runs("cat") == [(PLAIN, "cat")]
    assert "".join(run for _, run in letters._runs(f"кот{ALONE * 2}")) in (
        "кот??",
        f"кот{ALONE * 2}",
    )


def test_a_font_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.ttf").write_bytes(b"no font")
    for name in ("a.ttf", "missing.ttf"):
        with pytest.raises(InputError, match=rf"font .*{name} cannot be read as TrueType"):
            named_face(tmp_path / name)


def test_a_font_that_is_no_path() -> None:
    with pytest.raises(InputError, match="font must be the path of a font file, not int"):
        named_face(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--font", "a.ttf"], "--font needs --draw"),
        (["--font", "a.ttf", "--draw", "out.png"], "font a.ttf cannot be read as TrueType"),
    ],
)
def test_a_wrong_font_is_refused_before_any_work(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(picture(1, 40, 60)).save(tmp_path / "a.png")
    command = ["run", str(tmp_path / "a.png"), "--task", "od", "--model", "no-such"]
    assert main([*command, *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err


JOINED = [
    "a\u200db",  # zero-width joiner
    "a\u200cb",
    "\u200ba\ufeffb",
    "a\u00adb",  # soft hyphen
    "a\u200e\u2060\u061cb",
    "ab\U000e0067\U000e007f",  # tags, as in the flag of England
    "ab\ufe0f\U000e0100",  # variants
    "ab\U0001f3fd",  # tone of skin
]


@pytest.mark.parametrize("label", JOINED, ids=ascii)
def test_characters_that_show_nothing_are_no_boxes(
    no_fonts: Path, label: str, capsys: pytest.CaptureFixture[str]
) -> None:
    box = (20.0, 40.0, 120.0, 90.0)
    plain = drawn(answer(Detection(label="ab", box=box)))
    assert (drawn(answer(Detection(label=label, box=box))) == plain).all()
    assert capsys.readouterr().err == ""


def test_joined_emoji_without_a_font_are_one_question_mark_each(
    no_fonts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    box = (20.0, 40.0, 120.0, 90.0)
    family = drawn(answer(Detection(label="\U0001f468\U0001f3fd\u200d\U0001f467", box=box)))
    assert "has \U0001f467\U0001f468, drawn" in capsys.readouterr().err
    assert (family == drawn(answer(Detection(label="??", box=box)))).all()


def test_a_joiner_stays_where_the_font_has_one(cyrillic: Path) -> None:
    """Scripts that are shaped need joiners."""
    face = Face(str(cyrillic))
    if not has_glyph(face, "\u200d"):
        pytest.skip("the font has no joiner")
    assert Lettering([PLAIN, face], 20)._runs("\u043a\u200d\u043e") == [
        (face, "\u043a\u200d\u043e")
    ]


def test_characters_that_control_are_spelled_out(no_fonts: Path) -> None:
    box = (20.0, 40.0, 120.0, 90.0)
    spelled = drawn(answer(Detection(label="a b\\u202e", box=box)))
    assert (drawn(answer(Detection(label=" a\n\tb\u202e", box=box))) == spelled).all()


def test_fonts_are_sought_once_for_all_characters_of_a_drawing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sought: list[str] = []
    monkeypatch.setattr(fonts, "_find", sought.append)
    many = "".join(map(chr, range(0x4E00, 0x5200)))
    assert faces_for([many], None) == [PLAIN]
    assert sought == [many]


# Places


def overlap(one: Rectangle, other: Rectangle) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


@pytest.mark.parametrize(("width", "height"), [(640, 480), (64, 64), (3000, 120), (20, 5), (1, 1)])
def test_plates_are_inside_the_picture_and_apart(width: int, height: int) -> None:
    numbers = np.random.default_rng(5)
    corners = numbers.integers(0, (width, height, width, height), (60, 4))
    boxes = [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in corners.tolist()]
    sizes = [(int(wide), 14) for wide in numbers.integers(20, 120, 60)]
    placed = place_plates(sizes, boxes, (width, height))
    there = [place for place in placed if place is not None]
    for number, (x1, y1, x2, y2) in enumerate(there):
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height
        assert not any(overlap(there[number], other) for other in there[:number])
    for size, place in zip(sizes, placed, strict=True):
        assert place is None or (place[2] - place[0], place[3] - place[1]) == size
    if width == 640:
        assert len(there) == 60


@pytest.mark.parametrize(
    ("box", "place"),
    [
        ((100, 100, 200, 200), (100, 90, 140, 100)),  # above
        ((290, 100, 300, 200), (260, 90, 300, 100)),  # moved into the picture
        ((100, 0, 200, 200), (100, 0, 140, 10)),  # in the box
    ],
)
def test_a_plate_stands_by_its_box(box: Rectangle, place: Rectangle) -> None:
    assert place_plates([(40, 10)], [box], (300, 300)) == [place]


def test_a_plate_without_room_by_its_box_stands_near() -> None:
    box = (10, 100, 20, 110)
    places = place_plates([(40, 10)] * 8, [box] * 8, (300, 300))
    distances = [gap(place, box) for place in places if place is not None]
    assert len(distances) == 8
    assert 0 < max(distances) <= 40  # the width of a plate


def test_a_picture_of_a_pixel_is_drawn() -> None:
    assert drawn(answer(Detection(label="cat", box=(0.0, 0.0, 1.0, 1.0)), size=(1, 1))).size == 3


@pytest.mark.parametrize("label", ["a long label about a thing " * 8, "中文" * 100, "x" * 300])
def test_a_long_label_is_cut_off_in_the_picture(label: str) -> None:
    letters = Lettering(faces_for([label], None), 14)
    text = letters.fit(label, " 0.93", 200)
    assert letters.size(text)[0] <= 200
    assert text.endswith("… 0.93")
    assert letters.fit("cat", " 0.93", 200) == "cat 0.93"


# Lines, fills, scores and colours


def plate(result: Result) -> tuple[int, int]:
    """Height and width of what is drawn above the box."""
    above = (drawn(result) != 128).any(axis=-1)[: int(result.detections[0].box[1])]
    rows, columns = np.nonzero(above)
    return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


def test_lines_and_letters_grow_with_the_picture() -> None:
    heights, lines = [], []
    for scale in (1, 4, 8):
        size, box = (480 * scale, 480 * scale), tuple(float(scale * x) for x in (90, 240, 300, 400))
        result = answer(Detection(label="cat", box=box), size=size)  # type: ignore[arg-type]
        heights.append(plate(result)[0])
        lines.append(int((drawn(result) != 128).any(axis=-1)[300 * scale, : 200 * scale].sum()))
    assert np.array(heights) / heights[0] == pytest.approx([1, 4, 8], rel=0.15)
    assert lines == [2, 8, 16]


def test_things_without_a_label_have_colours_of_their_own() -> None:
    first = Detection(label="", box=(20.0, 20.0, 80.0, 80.0))
    second = Detection(label="", box=(110.0, 20.0, 190.0, 80.0))
    pixels = drawn(answer(first, second, kind=AnswerKind.PROPOSALS))
    assert [tuple(pixels[50, 20]), tuple(pixels[50, 110])] == [*_COLOURS[:2]]


def test_a_line_leads_from_a_plate_to_a_box_that_is_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = (0, 0, 50, 20)  # its middle: 25, 10
    monkeypatch.setattr("florence_onnx.drawing.picture.place_plates", lambda *_: [place])
    pixels = drawn(answer(Detection(label="cat", box=(125.0, 60.0, 190.0, 90.0))))
    assert tuple(pixels[35, 75]) == _COLOURS[0]


def test_scores_are_shown() -> None:
    box = (20.0, 40.0, 190.0, 90.0)
    plain = answer(Detection(label="cat", box=box))
    scores = DetectionScores(location=0.5, label=0.5, score=0.93)
    scored = answer(Detection(label="cat", box=box, scores=scores))
    assert plate(scored)[1] > plate(plain)[1]
    assert (drawn(scored) == drawn(answer(Detection(label="cat 0.93", box=box)))).all()
    alone = answer(Detection(label="", box=box, scores=scores))
    assert (drawn(alone) == drawn(answer(Detection(label="0.93", box=box)))).all()


def test_polygons_alone_are_filled() -> None:
    outline = (20.0, 20.0, 80.0, 20.0, 80.0, 80.0, 20.0, 80.0)
    polygon = Detection(label="", box=(20.0, 20.0, 80.0, 80.0), polygons=(outline,))
    box = Detection(label="", box=(110.0, 20.0, 190.0, 80.0))
    pixels = drawn(answer(polygon, box, kind=AnswerKind.BOXES_OR_POLYGONS))
    assert (pixels[30:70, 30:70] != 128).any(axis=-1).all()
    assert (pixels[30:70, 120:180] == 128).all()


DEFICIENCIES = {
    "protanopia": ((0.152, 1.053, -0.205), (0.115, 0.786, 0.099), (-0.004, -0.048, 1.052)),
    "deuteranopia": ((0.367, 0.861, -0.228), (0.280, 0.673, 0.047), (-0.012, 0.043, 0.969)),
    "tritanopia": ((1.256, -0.077, -0.179), (-0.078, 0.931, 0.148), (0.005, 0.691, 0.304)),
}
"""Linear RGB -> linear RGB, severity 1: Machado, Oliveira and Fernandes (2009)."""


def lab(linear: np.ndarray) -> np.ndarray:
    """CIELAB of linear RGB, of the white D65."""
    to_xyz = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    x, y, z = np.cbrt((np.clip(linear, 0, 1) @ np.array(to_xyz).T / (0.9505, 1, 1.089)).T)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_colour_blind_people_tell_the_colours_apart(deficiency: str) -> None:
    colours = np.array(_COLOURS) / 255
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    seen = lab(linear @ np.array(DEFICIENCIES[deficiency]).T)
    distances = np.linalg.norm(seen[:, None] - seen, axis=-1) + 1000 * np.eye(len(seen))
    # 2.3 is a difference that is just noticed (Mahy and others, 1994).
    assert distances.min() > 4 * 2.3
