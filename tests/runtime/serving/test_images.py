"""The Dockerfiles and the compose file name what there is, and a linter has nothing to say."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from florence_onnx.cli.program import main
from tests.helpers.pages import DOCS, ROOT

FOLDER = DOCS / "docker"
DOCKERFILES = sorted(path.name for path in FOLDER.glob("Dockerfile*"))
OF_COMMAND = re.compile(r"FLORENCE_ONNX_SERVE_\w+")


def test_there_are_images_for_cpu_and_cuda() -> None:
    assert DOCKERFILES == ["Dockerfile", "Dockerfile.cuda"]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_a_linter_has_nothing_to_say(name: str) -> None:
    program = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("hadolint is not installed")
    run = subprocess.run([program, str(FOLDER / name)], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_a_user_without_rights_runs_the_service(name: str) -> None:
    lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
    (user,) = (line.split()[1] for line in lines if line.startswith("USER "))
    assert int(user) > 0
    assert lines.index(f"USER {user}") < lines.index('ENTRYPOINT ["florence-onnx"]')


@pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="this is no clone")
@pytest.mark.parametrize("name", DOCKERFILES)
def test_copied_files_are_there(name: str) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8")
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert copied
    for source in copied:
        assert (ROOT / source).exists(), source


@pytest.mark.parametrize("name", [*DOCKERFILES, "compose.yaml"])
def test_variables_are_flags_of_the_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("fastapi")
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    told = capsys.readouterr().out
    found = OF_COMMAND.findall((FOLDER / name).read_text(encoding="utf-8"))
    assert found
    for variable in found:
        flag = variable.removeprefix("FLORENCE_ONNX_SERVE_").lower().replace("_", "-")
        assert re.search(rf"--{flag}\b", told), variable
