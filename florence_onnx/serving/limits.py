"""Limits to the cost of a request."""

from dataclasses import dataclass

from florence_onnx.errors import GenerationError
from florence_onnx.generation.policy import GenerationPolicy
from florence_onnx.serving.refusals import RefusalError

_LABEL_CHARACTERS = 100_000
"""Characters of all labels. Two million would take the engine from all others for 14 seconds."""


@dataclass(frozen=True)
class Limits:
    """Limits of every request. A request beyond a limit is refused with a message."""

    body_mib: int = 32
    """Size of a request's body in MiB, counted while the body comes in."""
    queue: int = 64
    """Number of requests that are accepted at the same time, waiting or being answered."""
    seconds: float = 60.0
    """Seconds from the first byte of a request to the answer."""
    tasks: int = 16
    """Number of tasks about one picture."""
    tiles: int = 16
    """Number of tiles of one picture, to which the whole picture is added."""
    beams: int = 8
    """Number of beams of a search."""
    tokens: int = 4096
    """Tokens of one answer, never more than the model's own limit."""

    def check_tasks(self, count: int) -> None:
        """Refuses a request of too many tasks, or of none.

        Raises:
            RefusalError: There is no task, or there are more than `tasks`.
        """
        if not 1 <= count <= self.tasks:
            raise RefusalError(
                422, "task_error", f"{count} tasks are asked; a request must have 1 to {self.tasks}"
            )

    def check_tiles(self, count: int) -> None:
        """Refuses a picture of too many tiles.

        Raises:
            RefusalError: There are more tiles than `tiles`.
        """
        if count > self.tiles:
            raise RefusalError(
                422, "input_error", f"tiles makes {count} tiles; this service allows {self.tiles}"
            )

    def bounded(self, policy: GenerationPolicy, max_tokens_given: bool) -> GenerationPolicy:
        """Makes a policy within the limits, where the request does not ask for more.

        Args:
            policy: The model's policy with the request's options.
            max_tokens_given: Whether the request has a limit of tokens.

        Raises:
            GenerationError: The request asks for more tokens or beams, or longer labels, than
                allowed.
        """
        if policy.num_beams > self.beams:
            raise GenerationError(
                f"num_beams is {policy.num_beams}; this service allows {self.beams} at most"
            )
        count = sum(map(len, policy.labels or ()))
        if count > _LABEL_CHARACTERS:
            raise GenerationError(
                f"labels has {count} characters; this service allows {_LABEL_CHARACTERS} at most"
            )
        if policy.max_new_tokens <= self.tokens:
            return policy
        if max_tokens_given:
            raise GenerationError(
                f"max_new_tokens is {policy.max_new_tokens}; this service allows {self.tokens} at "
                "most"
            )
        return policy.replace(max_new_tokens=self.tokens)
