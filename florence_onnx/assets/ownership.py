"""Ownership of files: the files of a folder that this package wrote and may replace."""

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from florence_onnx.assets.report import REPORT, read_report
from florence_onnx.engine import contract
from florence_onnx.engine.layouts import SLOTS
from florence_onnx.errors import ModelFileError, OutputExistsError
from florence_onnx.staging import WORK, check_places, finish_replacement

_AT_ONCE = 4
"""Number of files that are hashed at a time, the number of graphs with large weights."""


def replaced_files(out: Path, source: str | Path, graphs: Sequence[str], force: bool) -> set[str]:
    """Finds the files of an existing ``out`` that an export of ``source`` replaces.

    Args:
        out: Folder of the export.
        source: The checkpoint.
        graphs: Files of the new graphs, as relative paths.
        force: Whether an earlier export may be replaced.

    Returns:
        Relative paths with slashes.

    Raises:
        OutputExistsError: ``force`` is false, ``out`` is no export or holds the checkpoint, or a
            file in ``out`` that no export wrote has the name of a new file.
        ModelFileError: The report of ``out`` is not a JSON object.
    """
    if not force:
        raise OutputExistsError(f"{out} exists; choose another folder or pass --force")
    check_apart(out, source)
    ours = exported_files(out)
    check_places(out, [*contract.ASSETS, REPORT, *graphs], ours)
    return ours


def check_apart(out: Path, source: str | Path) -> None:
    """Checks that the checkpoint ``source`` is not in a folder that is to be changed.

    Raises:
        OutputExistsError: The checkpoint is the folder, or inside the folder.
    """
    checkpoint = Path(source).resolve()
    if not (checkpoint.exists() and out.exists()):
        return
    if any(folder.samefile(out) for folder in (checkpoint, *checkpoint.parents)):
        raise OutputExistsError(f"{out} holds the checkpoint itself; choose another folder")


def digests(folder: Path, files: Iterable[Path]) -> dict[str, str | None]:
    """Computes the SHA-256 of files in ``folder``, by relative path, for `written_files`."""
    ordered = sorted(files)
    found = _digests(ordered)
    return {
        path.relative_to(folder).as_posix(): digest
        for path, digest in zip(ordered, found, strict=True)
    }


def written_files(listed: object, folder: Path) -> set[str]:
    """Finds the files of a folder that have not changed since they were written.

    Args:
        listed: Result of `digests`, from a file that may have been changed.
        folder: The folder of the files.

    Returns:
        Relative paths with slashes.
    """
    files = listed if isinstance(listed, dict) else {}
    names = sorted(listed_names(files))
    found = _digests([folder / name for name in names])
    return {name for name, digest in zip(names, found, strict=True) if files[name] == digest}


def listed_names(listed: object) -> set[str]:
    """Lists the relative paths in a result of `digests`, without paths that lead elsewhere."""
    files = listed.items() if isinstance(listed, dict) else ()
    return {name for name, digest in files if _is_inside(name) and digest}


def changed_files(folder: Path) -> tuple[dict[str, str], int]:
    """Compares the files of an export with its report.

    Returns:
        Relative path -> "changed", "missing", or "extra" for a file that the report does not list;
        and the number of files that the report lists.

    Raises:
        ModelFileError: There is no report that lists files.
    """
    report = read_report(folder)
    added = report.get("precisions", {}).values()
    entries = [report, *(entry for entry in added if isinstance(entry, dict))]
    lists = [entry.get("files") for entry in entries]
    listed = set().union(*map(listed_names, lists))
    if not listed_names(report.get("files")):
        raise ModelFileError(f"{folder} has no {REPORT} that lists its files; export it again")
    kept = set().union(*(written_files(files, folder) for files in lists))
    states = {
        name: "changed" if (folder / name).is_file() else "missing"
        for name in sorted(listed - kept)
    }
    paths = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir())
    there = {path.as_posix() for path in paths if path.parts[0] != WORK}
    states |= dict.fromkeys(sorted(there - listed - {REPORT}), "extra")
    return states, len(listed)


def exported_files(folder: Path) -> set[str]:
    """Finds the files of a folder that an export has written and nobody has changed since.

    The report lists the files. Older exports did not list files; the files of such an export are
    known by name.

    Returns:
        Relative paths with slashes; none where the folder is empty.

    Raises:
        OutputExistsError: No export has written the folder.
        ModelFileError: The report is not a JSON object.
    """
    finish_replacement(folder)
    report = read_report(folder) if folder.is_dir() else {}
    if "files" in report:
        return _listed_files(report, folder) | {REPORT}
    if "versions" in report:
        return {name for name in known_names() if _is_plain(folder / name)}
    if folder.is_dir() and all(path.name == WORK for path in folder.iterdir()):
        return set()
    raise OutputExistsError(
        f"{folder} is not a model folder with the {REPORT} of an export, and --force replaces no "
        "other than those that florence-onnx export wrote; choose another folder"
    )


def known_names() -> set[str]:
    """Lists the names of files that an export can have."""
    return {*contract.ASSETS, REPORT, *SLOTS.known_files()}


def _listed_files(report: dict[str, Any], folder: Path) -> set[str]:
    """Joins the files that a report lists: the export's own files, and those of each precision."""
    added = report.get("precisions", {}).values()
    lists = [report, *(entry for entry in added if isinstance(entry, dict))]
    return set().union(*(written_files(entry.get("files"), folder) for entry in lists))


def _is_inside(name: str) -> bool:
    """Tells whether a value is a relative path of a file inside a folder."""
    path = Path(name)
    return path.anchor == "" and path.parts != () and ".." not in path.parts


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def file_digest(path: Path) -> str:
    """Computes the SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _digests(paths: Sequence[Path]) -> list[str | None]:
    """Computes the SHA-256 of plain files in threads, because hashing releases the interpreter."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(_digest, paths))


def _digest(path: Path) -> str | None:
    """Computes the SHA-256 of a plain file."""
    return file_digest(path) if _is_plain(path) else None
