"""Options for the address at which a command listens."""

import argparse


def add_address_options(parser: argparse.ArgumentParser, port: int) -> None:
    """Declares ``--host`` and ``--port``.

    Args:
        parser: Parser of the command.
        port: Default of ``--port``.
    """
    parser.add_argument(
        "--host", type=_host, default="127.0.0.1", help="address (default: 127.0.0.1)"
    )
    parser.add_argument(
        "--port",
        type=_port,
        default=port,
        metavar="N",
        help=f"port, 0 for a free one (default: {port})",
    )


def _host(text: str) -> str:
    """Reads an address; an empty address would be every address of the machine."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty; give an address, such as 127.0.0.1")
    return text


def _port(text: str) -> int:
    if not (text.isdecimal() and text.isascii() and int(text[:6]) < 1 << 16):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, which is 0 to 65535")
    return int(text)
