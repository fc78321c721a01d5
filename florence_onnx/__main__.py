"""Entry of ``python -m florence_onnx``: the command line."""

import sys

from florence_onnx.cli.program import main

if __name__ == "__main__":
    sys.exit(main())
