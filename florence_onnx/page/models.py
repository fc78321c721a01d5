"""The model of the page, in one precision at a time."""

from collections.abc import Callable, Iterable
from threading import Lock

from florence_onnx.errors import PrecisionError
from florence_onnx.model import Florence2
from florence_onnx.serving.memory import give_back


class Models:
    """A model that can be opened in several precisions, of which the last one is kept."""

    def __init__(
        self,
        model: Florence2,
        precision: str,
        others: Iterable[str],
        open_model: Callable[[str], Florence2],
    ) -> None:
        """Takes an opened model.

        Args:
            model: The model.
            precision: The precision that it was opened in.
            others: Others that it may be opened in.
            open_model: Opens it in one of these.
        """
        self._open_model, self._lock = open_model, Lock()
        self._model: Florence2 | None = model
        self._precision = precision
        self.precisions = tuple(dict.fromkeys((precision, *others)))

    def at(self, precision: str) -> Florence2:
        """The model in a precision; one in another precision is closed before it is opened.

        Raises:
            PrecisionError: It is none of `precisions`.
            ModelError: It cannot be opened.
        """
        if precision not in self.precisions:
            raise PrecisionError(
                f"precision is {precision!r:.80}; it must be one of {', '.join(self.precisions)}"
            )
        with self._lock:
            if self._model is None or precision != self._precision:
                self._model = None
                give_back()
                self._model = self._open_model(precision)
                self._precision = precision
            return self._model
