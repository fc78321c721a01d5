"""Refusals: answers with a status, a code for programs and a message for people."""

import re
from collections.abc import Mapping
from typing import Any

from florence_onnx.errors import FlorenceError, InputError
from florence_onnx.terminal import one_line


class RefusalError(Exception):
    """Signals an answer that is an error."""

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        """Makes an error.

        Args:
            status: The status of the response.
            code: Code of the error for programs, such as ``queue_full``.
            message: Error and remedy, in words.
            headers: Headers of the response.
        """
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """Makes the body of the response."""
        return {"error": {"code": self.code, "message": self.message}}


def refusal(error: BaseException) -> RefusalError:
    """Makes the refusal for an error.

    For errors that are not about the request, the client gets no message, because such messages
    name folders of the server.
    """
    if isinstance(error, RefusalError):
        return error
    if isinstance(error, InputError):
        name = type(error).__name__.removesuffix("Error")
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
        return RefusalError(422, f"{words}_error", one_line(error))
    if isinstance(error, FlorenceError):
        return RefusalError(503, "model_unavailable", "the model cannot be used; ask the operator")
    return RefusalError(500, "internal_error", "the service failed; its log has the request's id")
