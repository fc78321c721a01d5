"""Annotation by actors of a Ray cluster, written by the process that started the actors."""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from florence_onnx.annotate.journal import read_lines
from florence_onnx.annotate.output import Output
from florence_onnx.annotate.pipeline import Summary
from florence_onnx.annotate.questions import Plan
from florence_onnx.annotate.ray import Annotator, row_of
from florence_onnx.annotate.sources import Item
from florence_onnx.annotate.tries import Tries
from florence_onnx.annotate.video import is_video
from florence_onnx.errors import FlorenceError, InputError
from florence_onnx.packages import require_packages
from florence_onnx.terminal import standard_error

LOCAL = "local"
"""Address for a new cluster on this machine, which ends with the run."""
_ROWS = 32
"""Pictures that an actor takes at a time, and that are asked again if the actor ends."""
_BLOCKS = 10_000
"""Limit of the blocks of a dataset, because a process keeps track of each block."""
_THREADS = 4
"""Usual processors of an actor. Fewer need more models in memory, more wait for each other."""
_STORE = 256 << 20
"""Bytes of the object store of a local cluster, which transfers names and answers."""

Contents = Mapping[str, Mapping[str, Sequence[int]]]
"""Path of a picture -> SHA-256 of its file -> numbers of the questions that are answered."""


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Connects this process to a cluster, or keeps an existing connection.

    Args:
        address: Address for ``ray.init``, or `LOCAL`.

    Raises:
        MissingDependencyError: Ray is not installed.
        InputError: There is no cluster at the address.
    """
    require_packages(("ray", "pyarrow"), "--ray", "ray")
    import ray

    ours: dict[str, Any] = {"include_dashboard": False, "object_store_memory": _STORE}
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    with redirect_stdout(standard_error()):  # Ray prints events of actors.
        if ray.is_initialized():
            yield
            return
        try:
            ray.init(address, **quiet, **(ours if address == LOCAL else {}))
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(f"there is no Ray cluster at {address}: {error}") from error
        try:
            yield
        finally:
            ray.shutdown()


@dataclass(frozen=True)
class Crew:
    """Crew of actors with a model each, which do the work of `Annotation`."""

    model: str
    plan: Plan
    opening: Mapping[str, Any]
    """Arguments of `Florence2.load`."""
    actors: int
    threads: int
    """Processors of an actor, and threads of the actor's model."""
    gpus: float
    """GPUs of an actor: a part of a GPU, or several."""

    @classmethod
    def of(
        cls,
        model: str,
        plan: Plan,
        opening: Mapping[str, Any],
        *,
        actors: int | None,
        threads: int | None,
        gpus: float,
    ) -> "Crew":
        """Makes a crew for the connected cluster, by default as large as the cluster has room for.

        Raises:
            InputError: The cluster has room for fewer actors, or for no actor.
        """
        import ray

        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        largest = int(max((node.get("CPU", 0) for node in nodes), default=0))
        threads = threads or max(1, min(_THREADS, largest))
        room = sum(
            int(min(node.get("CPU", 0) / threads, node.get("GPU", 0) / gpus if gpus else 1e9))
            for node in nodes
        )
        if room < (actors or 1):
            needed = f"{threads} processors" + (f" and {gpus:g} GPU" if gpus else "")
            raise InputError(
                f"the Ray cluster has room for {room} actors of {needed}; give smaller --actors, "
                "--threads or --gpus-per-actor"
            )
        # An absolute path names the same folder for actors elsewhere.
        folder = Path(model)
        named = str(folder.absolute()) if folder.is_dir() else model
        return cls(named, plan, opening, actors or room, threads, gpus)

    def identify(self) -> tuple[str, str]:
        """Finds the digest and precision of the model that a process of the cluster opens.

        Raises:
            ModelError: The process cannot open the model.
            InputError: An option is wrong.
        """
        import ray

        opened = ray.remote(num_cpus=self.threads, num_gpus=self.gpus)(_identity)
        with _failures():
            digest, precision = ray.get(opened.remote(self.model, self.plan, self._opening()))
        return digest, precision

    def run(
        self,
        items: Sequence[Item],
        output: Output,
        *,
        stopped: Callable[[], bool],
        watch: Callable[[Summary], object],
    ) -> Summary:
        """Asks about all pictures that are not answered yet.

        Args:
            items: The pictures, in files that every node can read under the same name.
            output: Takes the answers, in the order of their arrival.
            stopped: Called whenever answers arrive; true to stop the run.
            watch: Called with the state after that.

        Raises:
            FlorenceError: The cluster fails.
            OSError: The output cannot be written.
        """
        import ray.data

        contents = _contents(output, self.plan)
        texts = [row_of(one, contents.get(one.path, {})) for one in self._chosen(items, contents)]
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        summary = Summary()
        with _failures():
            tries = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Tries).remote()
            answered = ray.data.from_items(texts, override_num_blocks=self._blocks(len(texts)))
            answered = answered.map_batches(
                Annotator,
                fn_constructor_kwargs={
                    "model": self.model,
                    "tasks": self.plan,
                    "digest": output.model,
                    "tries": tries,
                    **self._opening(),
                },
                batch_size=None,  # A block.
                compute=ray.data.ActorPoolStrategy(size=self.actors),
                num_cpus=self.threads,
                num_gpus=self.gpus,
            )
            batches = answered.iter_batches(batch_size=None)
            for batch in batches:
                self.write(output, zip(batch["annotations"], batch["errors"], strict=True), summary)
                watch(summary)
                summary.interrupted = stopped()
                if summary.interrupted or self._left(summary) == 0:
                    break
        return summary

    def write(self, output: Output, rows: Iterable[tuple[str, str]], summary: Summary) -> None:
        """Appends the answers about pictures, each picture once."""
        questions = {(one.name, one.text): one for one in self.plan.questions}
        for annotations, errors in rows:
            if self._left(summary) == 0:
                return
            lines = []
            for line in json.loads(annotations):
                key = line["path"], line["hash"], questions[line["task"], line["input"]]
                if not output.knows(*key):
                    output.claim(*key)
                    lines.append(line)
            failed = json.loads(errors)
            output.add(lines)
            for line in failed:
                output.fail(line)
            summary.pictures += 1
            summary.skipped += not lines and not failed
            summary.answers += len(lines)
            summary.errors += len(failed)

    def _left(self, summary: Summary) -> int | None:
        """Number of pictures that may still be asked about; None for any number."""
        limit = self.plan.limit
        return None if limit is None else limit - (summary.pictures - summary.skipped)

    def _chosen(self, items: Sequence[Item], contents: Contents) -> Iterator[Item]:
        """Chooses the pictures to send: pictures without answers, up to the limit."""
        count, all_questions = 0, len(self.plan.questions)
        for item in items:
            if is_video(item.file):
                raise InputError(
                    f"{item.file} is a video, which one process decodes: annotate it without --ray"
                )
            answered = contents.get(item.path, {}).values()
            is_through = any(len(numbers) == all_questions for numbers in answered)
            count += not is_through
            if self.plan.limit is None or is_through or count <= self.plan.limit:
                yield item

    def _blocks(self, rows: int) -> int:
        """Divides the dataset: an actor takes a part at a time and returns its answers together."""
        least = min(rows, 4 * self.actors)
        return max(1, least, min(_BLOCKS, -(-rows // _ROWS)))

    def _opening(self) -> dict[str, Any]:
        return {"threads": self.threads, **self.opening}


def _identity(model: str, plan: Plan, opening: Mapping[str, Any]) -> tuple[str, str]:
    annotator = Annotator(model, plan, **opening)
    return annotator.digest, annotator.precision


def _contents(output: Output, plan: Plan) -> Contents:
    """Answers of earlier runs, for actors that must not ask again."""
    contents: dict[str, dict[str, list[int]]] = {}
    for _, line in read_lines(output.file) if output.file else ():
        path, content = line["path"], line["hash"]
        if content not in contents.setdefault(path, {}):
            contents[path][content] = [
                number
                for number, question in enumerate(plan.questions)
                if output.knows(path, content, question)
            ]
    return contents


@contextmanager
def _failures() -> Iterator[None]:
    """Raises the known errors of actors; turns other errors into one line."""
    import ray

    try:
        yield
    except ray.exceptions.RayError as error:
        cause: BaseException | None = error
        while isinstance(cause, ray.exceptions.RayError):
            cause = getattr(cause, "cause", None) or cause.__cause__
        if isinstance(cause, FlorenceError):
            raise cause from None
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise FlorenceError(f"the Ray cluster has failed: {lines[-1]}") from error
