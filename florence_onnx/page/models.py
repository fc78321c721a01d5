"""Models of the page: one model in one precision at a time."""

from collections.abc import Callable, Iterable
from threading import Lock

from florence_onnx.errors import PrecisionError
from florence_onnx.model import Florence2
from florence_onnx.serving.memory import give_back


class Models:
    """Model that can be opened in several precisions. Only the last precision is kept."""

    def __init__(
        self,
        model: Florence2,
        precision: str,
        others: Iterable[str],
        open_model: Callable[[str], Florence2],
    ) -> None:
        """Stores an opened model.

        Args:
            model: The model.
            precision: Precision of the opened model.
            others: Further precisions of the model.
            open_model: Opens the model in a precision.
        """
        self._open_model, self._lock = open_model, Lock()
        self._model: Florence2 | None = model
        self._precision = precision
        self.precisions = tuple(dict.fromkeys((precision, *others)))

    def at(self, precision: str) -> Florence2:
        """Returns the model in a precision. A model in another precision is closed first.

        Raises:
            PrecisionError: The precision is not among `precisions`.
            ModelError: The model cannot be opened.
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
