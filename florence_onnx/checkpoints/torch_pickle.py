"""Reading of the pickles of torch.save without the pickle module: tensors, and nothing else.

A pickle is a program for a stack machine. This interpreter knows only the instructions that a
dictionary of tensors needs, and calls only the functions that rebuild tensors. All other
instructions and functions are refused, so no code of the file can run.
"""

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

STORAGES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}
"""Class of a storage in torch -> type of the storage's values, by safetensors' names."""

_CALLABLE = {
    "collections.OrderedDict": "dictionary",
    "torch._utils._rebuild_tensor_v2": "tensor",
    "torch._utils._rebuild_parameter": "parameter",
}
_MOST_AXES = 8
_MOST_INSTRUCTIONS = 1 << 20
"""Limit of a pickle's instructions, each of which may make a value. A weight takes 40."""


class RefusedPickleError(ValueError):
    """Signals a pickle that is damaged, or holds other objects than tensors."""


@dataclass(frozen=True)
class Storage:
    """Storage: a row of values, of which tensors are views."""

    dtype: str
    """Type of the values, a value of `STORAGES`."""
    key: str
    """Name of the storage in the file."""
    count: int
    """Number of values."""


@dataclass(frozen=True)
class View:
    """View of some values of a storage: a tensor."""

    storage: Storage
    """Storage that holds the values."""
    offset: int
    """Index of the first value in the storage."""
    shape: tuple[int, ...]
    """Tensor's shape."""
    strides: tuple[int, ...]
    """Steps in values of the storage from one index to the next, per axis."""


@dataclass(frozen=True)
class _Callable:
    kind: str


@dataclass(frozen=True)
class _StorageType:
    dtype: str


_MARK = object()


def load_pickle(data: bytes, start: int = 0) -> tuple[Any, int]:
    """Runs one pickle.

    Args:
        data: Bytes that hold the pickle.
        start: Place of the pickle's first byte.

    Returns:
        The object, made of dictionaries, lists, tuples, strings, numbers, None and `View`; and the
        end of the pickle.

    Raises:
        RefusedPickleError: The pickle is damaged, or builds an object of another type.
    """
    machine = _Machine(data, start)
    try:
        return machine.run(), machine.at
    except RefusedPickleError:
        raise
    except (LookupError, ValueError, TypeError, AttributeError, struct.error) as error:
        raise RefusedPickleError("its pickle is damaged") from error


class _Machine:
    """Stack machine: the stack, the memo and the place in the program."""

    def __init__(self, data: bytes, start: int) -> None:
        self.at = start
        self._data = data
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        for _ in range(_MOST_INSTRUCTIONS):
            code = self._take(1)
            if code == b".":
                return self._stack.pop()
            operation = _OPERATIONS.get(code)
            if operation is None:
                raise RefusedPickleError(f"its pickle has the instruction {code!r}")
            operation(self)
        raise RefusedPickleError("its pickle makes too many values")

    def _take(self, count: int) -> bytes:
        taken = self._data[self.at : self.at + count]
        if len(taken) < count:
            raise RefusedPickleError("its pickle is truncated")
        self.at += count
        return taken

    def _unpack(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _line(self) -> str:
        end = self._data.index(b"\n", self.at, self.at + 256)
        text = self._data[self.at : end].decode("ascii")
        self.at = end + 1
        return text

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _marked(self) -> list[Any]:
        """Removes the values since the last mark, and the mark, from the stack."""
        first = len(self._stack) - 1
        while self._stack[first] is not _MARK:
            first -= 1
            if first < 0:
                raise RefusedPickleError("its pickle is damaged")
        values = self._stack[first + 1 :]
        del self._stack[first:]
        return values

    def protocol(self) -> None:
        if self._take(1) != b"\x02":
            raise RefusedPickleError("its pickle has a protocol other than 2, which torch writes")

    def put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def get(self, index: int) -> None:
        self._push(self._memo[index])

    def tuple_of(self, count: int) -> None:
        if len(self._stack) < count:
            raise RefusedPickleError("its pickle is damaged")
        self._stack[-count:] = [tuple(self._stack[-count:])]

    def set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not dict or not all(type(key) in (str, int) for key in items[::2]):
            raise RefusedPickleError("its pickle is damaged")
        target.update(zip(items[::2], items[1::2], strict=True))

    def append(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not list:
            raise RefusedPickleError("its pickle is damaged")
        target.extend(items)

    def name(self) -> None:
        module, name = self._line(), self._line()
        full = f"{module}.{name}"
        if full in _CALLABLE:
            self._push(_Callable(_CALLABLE[full]))
        elif module == "torch" and name in STORAGES:
            self._push(_StorageType(STORAGES[name]))
        else:
            raise RefusedPickleError(f"it asks for {full}, which no tensor needs")

    def persistent(self) -> None:
        """Makes a storage of ("storage", type, key, device, count); older files add a None."""
        kind, storage_type, key, _, count, *_ = self._stack.pop()
        if kind != "storage" or type(storage_type) is not _StorageType or type(key) is not str:
            raise RefusedPickleError("it refers to something else than a storage")
        self._push(Storage(storage_type.dtype, key, _whole(count)))

    def reduce(self) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if type(function) is not _Callable or type(arguments) is not tuple:
            raise RefusedPickleError("it calls something else than a tensor's constructor")
        if function.kind == "dictionary":
            if arguments:
                raise RefusedPickleError("its pickle is damaged")
            self._push({})
        elif function.kind == "tensor":
            self._push(_view(*arguments[:4]))
        else:  # A parameter is represented by its tensor.
            self._push(arguments[0])

    def build(self) -> None:
        """Ignores the attributes of a dictionary, such as the versions of a state dict."""
        self._stack.pop()
        if type(self._stack[-1]) is not dict:
            raise RefusedPickleError("it holds an object other than a tensor or dictionary")

    def long(self) -> None:
        self._push(int.from_bytes(self._take(self._take(1)[0]), "little", signed=True))

    def text(self) -> None:
        self._push(self._take(self._unpack("<I")).decode("utf-8", "surrogatepass"))

    def mark(self) -> None:
        self._push(_MARK)

    def item(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self.set_items([key, value])


def _view(storage: Any, offset: Any, shape: Any, strides: Any) -> View:
    if type(storage) is not Storage or type(shape) is not tuple or type(strides) is not tuple:
        raise RefusedPickleError("it holds a tensor without a storage")
    if len(shape) != len(strides) or len(shape) > _MOST_AXES:
        raise RefusedPickleError("it holds a tensor with shape and strides that do not fit")
    first = _whole(offset)
    sizes, steps = tuple(map(_whole, shape)), tuple(map(_whole, strides))
    end = first + 1 + sum((size - 1) * step for size, step in zip(sizes, steps, strict=True))
    if math.prod(sizes) > storage.count or (0 not in sizes and end > storage.count):
        raise RefusedPickleError("it holds a tensor that is larger than its storage")
    return View(storage, first, sizes, steps)


def _whole(number: Any) -> int:
    if type(number) is not int or not 0 <= number < 1 << 48:
        raise RefusedPickleError("it holds a tensor with impossible sizes")
    return number


_OPERATIONS: dict[bytes, Callable[[_Machine], None]] = {
    b"\x80": _Machine.protocol,
    b"(": _Machine.mark,
    b"}": lambda machine: machine._push({}),
    b"]": lambda machine: machine._push([]),
    b")": lambda machine: machine._push(()),
    b"N": lambda machine: machine._push(None),
    b"\x88": lambda machine: machine._push(True),
    b"\x89": lambda machine: machine._push(False),
    b"K": lambda machine: machine._push(machine._take(1)[0]),
    b"M": lambda machine: machine._push(machine._unpack("<H")),
    b"J": lambda machine: machine._push(machine._unpack("<i")),
    b"G": lambda machine: machine._push(machine._unpack(">d")),
    b"\x8a": _Machine.long,
    b"X": _Machine.text,
    b"q": lambda machine: machine.put(machine._take(1)[0]),
    b"r": lambda machine: machine.put(machine._unpack("<I")),
    b"h": lambda machine: machine.get(machine._take(1)[0]),
    b"j": lambda machine: machine.get(machine._unpack("<I")),
    b"t": lambda machine: machine._push(tuple(machine._marked())),
    b"\x85": lambda machine: machine.tuple_of(1),
    b"\x86": lambda machine: machine.tuple_of(2),
    b"\x87": lambda machine: machine.tuple_of(3),
    b"s": _Machine.item,
    b"u": lambda machine: machine.set_items(machine._marked()),
    b"a": lambda machine: machine.append([machine._stack.pop()]),
    b"e": lambda machine: machine.append(machine._marked()),
    b"c": _Machine.name,
    b"Q": _Machine.persistent,
    b"R": _Machine.reduce,
    b"b": _Machine.build,
}
"""Instructions that torch.save writes. The loop over the instructions handles ``.``, the end."""
