"""Service that a user would write around transformers: FastAPI, one request at a time.

python -m benchmarks.harness.transformers_service CHECKPOINT PORT THREADS
"""

import io
import sys
import threading
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from PIL import Image

from benchmarks.harness.common import BEAMS, CPU, Setup
from benchmarks.peers.transformers_eager import open_peer


def make_app(checkpoint: Path, threads: int) -> FastAPI:
    """Makes the application, which takes a picture file and returns a parsed answer.

    Args:
        checkpoint: Checkpoint in transformers' format, opened as bfloat16.
        threads: Threads of PyTorch.
    """
    import numpy as np
    from starlette.concurrency import run_in_threadpool

    peer = open_peer("bf16", Setup(checkpoint, checkpoint, checkpoint, CPU, threads))
    one_at_a_time = threading.Lock()
    app = FastAPI()

    def answer(content: bytes, task: str, tokens: int) -> dict[str, Any]:
        picture = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        with one_at_a_time:
            return peer.answer([picture], task, tokens, BEAMS)[0].parsed

    async def post(request: Request, task: str, tokens: int) -> dict[str, Any]:
        content = await request.body()
        return await run_in_threadpool(answer, content, task, tokens)

    app.add_api_route("/answer", post, methods=["POST"])
    return app


if __name__ == "__main__":
    folder, port, count = sys.argv[1:]
    uvicorn.run(make_app(Path(folder), int(count)), port=int(port), log_level="error")
