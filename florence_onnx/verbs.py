"""Verbs of an opened model: prepare and answer requests, in one batch or in a stream."""

from collections.abc import Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Literal, overload

from florence_onnx import preparing
from florence_onnx.answering import answer_batch
from florence_onnx.assets.reading import Assets
from florence_onnx.engine.sessions import Graphs
from florence_onnx.generation.policy import GenerationPolicy
from florence_onnx.requests import Failure, Prepared, Request
from florence_onnx.results import Result
from florence_onnx.streaming import Stream, iterator

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from florence_onnx.generation.options import GenerationOptions


class Verbs:
    """Verbs of an opened model. `Florence2` adds opening and calls of one line."""

    def __init__(self, assets: Assets, graphs: Graphs) -> None:
        """Stores the graphs and assets that `Florence2.load` opens."""
        self.assets = assets
        self.graphs = graphs

    @property
    def policy(self) -> GenerationPolicy:
        """Generation policy of the checkpoint, which the options of a call override."""
        return self.assets.policy

    def prepare(self, request: Request) -> Prepared:
        """Checks a request, decodes and resizes the picture, and tokenizes the prompt.

        The engine is not used, so other threads may prepare requests while the engine works.

        Raises:
            InputError: The picture, the task or its input is wrong.
        """
        preparing.check_request(request)
        picture = preparing.read_picture(
            self.assets, request.image, request.tiles, request.image_size
        )
        return preparing.prepare(self.assets, request, picture)

    @overload
    def answer(self, prepared: Prepared, **options: "Unpack[GenerationOptions]") -> Result: ...

    @overload
    def answer(
        self, prepared: Sequence[Prepared], **options: "Unpack[GenerationOptions]"
    ) -> list[Result]: ...

    def answer(
        self, prepared: Prepared | Sequence[Prepared], **options: "Unpack[GenerationOptions]"
    ) -> Result | list[Result]:
        """Answers prepared requests as one batch: mixed tasks, pictures of mixed sizes.

        Args:
            prepared: Results of `prepare`: a sequence, or a single one.
            **options: Overrides of the checkpoint's `policy`, under transformers' names.

        Returns:
            One result per request, in order; for a single request, a result.

        Raises:
            InputError: An option is wrong, or a request was prepared or its picture encoded by
                another model.
        """
        policy = self.policy.replace(**options)
        batch = preparing.check_prepared(self.assets, prepared)
        results = answer_batch(self.assets, self.graphs, batch, policy) if batch else []
        return results[0] if isinstance(prepared, Prepared) else results

    @overload
    def stream(
        self,
        requests: Iterable[Request],
        *,
        batch_size: int = 8,
        on_error: Literal["raise"] = "raise",
        **options: "Unpack[GenerationOptions]",
    ) -> Generator[Result, None, None]: ...

    @overload
    def stream(
        self,
        requests: Iterable[Request],
        *,
        batch_size: int = 8,
        on_error: Literal["return"],
        **options: "Unpack[GenerationOptions]",
    ) -> Generator[Result | Failure, None, None]: ...

    def stream(
        self,
        requests: Iterable[Request],
        *,
        batch_size: int = 8,
        on_error: Literal["raise", "return"] = "raise",
        **options: "Unpack[GenerationOptions]",
    ) -> Generator[Result | Failure, None, None]:
        """Answers any number of requests, in order and in bounded memory.

        While a batch is answered, the pictures of the next batch are decoded and resized in
        threads. So up to ``2 * batch_size`` requests are taken from the iterable before the first
        answer, each with 7 MB of pixels at 768x768. A picture that occurs more than once in these
        requests (the same path or the same object) is decoded and encoded once. An exception of
        the iterable is raised after the answers to the requests before the exception.

        Args:
            requests: Any iterable, with or without an end.
            batch_size: Requests that are decoded together; tasks and sizes may be mixed.
            on_error: ``"raise"`` to end at the first request that cannot be answered;
                ``"return"`` to yield a `Failure` in the request's place and go on.
            **options: Overrides of the checkpoint's `policy`, under transformers' names.

        Returns:
            A generator. To close the generator ends the threads.

        Raises:
            InputError: At once where an argument or option is wrong; from the generator where a
                request is.
        """
        policy = self.policy.replace(**options)
        stream = Stream(self.assets, self.graphs, policy, batch_size, on_error)
        return stream.answers(iterator(requests))

    def run(
        self,
        requests: Iterable[Request],
        *,
        batch_size: int = 8,
        **options: "Unpack[GenerationOptions]",
    ) -> list[Result]:
        """Answers requests: ``list(model.stream(requests, ...))``.

        Raises:
            InputError: A request, an argument or an option is wrong.
        """
        return list(self.stream(requests, batch_size=batch_size, **options))
