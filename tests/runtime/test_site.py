"""The documentation site: every page is in it, every link leads somewhere, and it builds."""

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import florence_onnx
from tests.helpers import command_docs
from tests.helpers.pages import DOCS, ROOT, page

CONFIG = ROOT / ".zensical.toml"
PAGES = sorted(path.name for path in DOCS.glob("*.md"))
LANGUAGES = {"bash", "python", "js", "json", "console", "text"}
"""Of fenced blocks: the first three are run by tests."""
IN_TEXT = re.compile(r"\]\(([^)\s]+)\)")


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```|`[^`\n]*`", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(text: str) -> set[str]:
    """What headings of a page can be linked by, on a code host and on the site."""
    titles = re.findall(r"^#+ (.*)$", without_code(text), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", title.lower()) for title in titles)
    return {title.strip().replace(" ", "-") for title in plain}


@pytest.mark.skipif(not CONFIG.is_file(), reason="this is no clone")
def test_every_page_is_in_the_navigation_once() -> None:
    named = re.findall(r'= "([\w-]+\.md)"', CONFIG.read_text(encoding="utf-8"))
    assert sorted(named) == PAGES


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_to_what_is_in_the_docs(name: str) -> None:
    """A link out of docs/ would work on a code host alone."""
    for link in IN_TEXT.findall(without_code(page(name))):
        address = urlsplit(link)
        if address.scheme:
            assert address.scheme == "https", link
            continue
        target = DOCS / (unquote(address.path) or name)
        assert target.is_file() and target.resolve().is_relative_to(DOCS), link
        if address.fragment:
            assert address.fragment in anchors(target.read_text(encoding="utf-8")), link


@pytest.mark.parametrize("name", PAGES)
def test_commands_and_snippets_are_in_languages_that_are_run(name: str) -> None:
    fences = re.findall(r"^```(.*)$", page(name), re.MULTILINE)
    assert len(fences) % 2 == 0
    assert set(fences[::2]) <= LANGUAGES
    assert set(fences[1::2]) <= {""}


@pytest.mark.parametrize("name", PAGES)
def test_what_can_be_run_is_run_by_a_test(name: str) -> None:
    if re.search(r"^```(bash|python|js)$", page(name), re.MULTILINE):
        tests = [path for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__)]
        assert any(f'"{name}"' in path.read_text(encoding="utf-8") for path in tests)


def test_the_api_has_every_public_name() -> None:
    listed = re.findall(r"^::: florence_onnx\.(\w+)$", page("api.md"), re.MULTILINE)
    errors = {
        name
        for name, value in vars(florence_onnx).items()
        if isinstance(value, type) and issubclass(value, Exception | Warning)
    }
    assert "errors" in listed
    assert sorted({*listed, *errors, "__version__"} - {"errors"}) == sorted(florence_onnx.__all__)


def test_the_page_of_commands_is_what_they_print() -> None:
    """Lines break elsewhere in other versions of Python."""
    assert page("commands.md").split() == command_docs.page().split()


def test_pictures_are_small() -> None:
    assert sum(path.stat().st_size for path in DOCS.rglob("*.png")) < 1_000_000


class Fetched(HTMLParser):
    """The addresses that a page loads, and the pages that it leads to."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value}
        if tag == "a":
            self.links.append(given.get("href", "#"))
        elif tag == "link" and given.get("rel") not in ("next", "prev", "canonical"):
            self.loaded.append(given["href"])
        elif "src" in given:
            self.loaded.append(given["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    pytest.importorskip("zensical")
    pytest.importorskip("mkdocstrings_handlers.python")
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(DOCS, folder / "docs")
    shutil.copy(CONFIG, folder)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "-f", CONFIG.name]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / "build" / "site"


def test_the_site_has_every_page_and_fetches_nothing_from_elsewhere(site: Path) -> None:
    for name in PAGES:
        file = site / ("" if name == "index.md" else Path(name).stem) / "index.html"
        text = file.read_text(encoding="utf-8")
        assert ":::" not in text, name
        read = Fetched()
        read.feed(text)
        assert len(read.links) > len(PAGES)
        assert [one for one in read.loaded if urlsplit(one).netloc] == []
        for link in (*read.loaded, *read.links):
            address = urlsplit(link)
            if not (address.scheme or address.netloc) and address.path:
                target = (file.parent / unquote(address.path)).resolve()
                assert (target / "index.html" if target.is_dir() else target).is_file(), link


def test_the_site_has_the_docstrings(site: Path) -> None:
    text = (site / "api" / "index.html").read_text(encoding="utf-8")
    for words in ("Opens a model.", "Answers one task on a picture", "is needed", "REGION_TO_OCR"):
        assert words in text
