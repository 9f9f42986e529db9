"""Which module has to be called before a tensor may be used, as one share has shown.

Usually that is the tensor's owner. But attention uses a child's weights without calling it, and weights that are tied
have several owners, of which any may be the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from encephalon.learning.region import Learned

__all__ = ["Uses"]


class Uses:
    """Watches what this thread computes with `learned` from now on until `close`, which the same thread calls."""

    def __init__(self, module: nn.Module, learned: Sequence[Learned]) -> None:
        self._modules = dict(module.named_modules(remove_duplicate=False))
        self._paths = _paths(self._modules, learned)
        self._called: set[nn.Module] = set()
        self._first: dict[int, nn.Module] = {}
        self._hooks = [
            each.register_forward_pre_hook(lambda called, _: self._called.add(called)) for each in module.modules()
        ]
        self._watch = _Watch(self._used)
        self._watch.__enter__()  # type: ignore[no-untyped-call]

    def place(self, learned: Learned) -> nn.Module:
        """The innermost module around the tensor that was called before it was first used; of one that was not used,
        that was called at all."""
        return self._first.get(id(learned.tensor)) or self._around(id(learned.tensor))

    def close(self) -> None:
        self._watch.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        for hook in self._hooks:
            hook.remove()

    def _used(self, tensor: Tensor) -> None:
        if id(tensor) in self._paths and id(tensor) not in self._first:
            self._first[id(tensor)] = self._around(id(tensor))

    def _around(self, tensor: int) -> nn.Module:
        """Innermost of those that were called; the whole when there is none."""
        paths = [above for path in self._paths[tensor] for above in _upwards(path)]
        called = [path for path in paths if self._modules[path] in self._called]
        innermost = max(called, key=lambda path: path.count(".") + bool(path), default="")
        found: nn.Module = self._modules[innermost]
        return found


class _Watch(TorchFunctionMode):
    """Shows every tensor that a function of torch is given."""

    def __init__(self, used: Callable[[Tensor], None]) -> None:
        super().__init__()
        self._used = used

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in _tensors([args, kwargs]):
            self._used(tensor)
        return func(*args, **(kwargs or {}))


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _tensors(each)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _paths(modules: dict[str, nn.Module], learned: Sequence[Learned]) -> dict[int, list[str]]:
    """Of the owners of each tensor, by the tensor's identity."""
    paths: dict[int, list[str]] = {id(each.tensor): [] for each in learned}
    for path, module in modules.items():
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if id(tensor) in paths:
                paths[id(tensor)].append(path)
    return paths


def _upwards(path: str) -> Iterator[str]:
    """The path, that of what is around it, and so on."""
    while path:
        yield path
        path = path.rpartition(".")[0]
    yield ""
