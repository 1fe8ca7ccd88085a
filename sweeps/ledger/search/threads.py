"""One thread for linear algebra: the search's matrices are small, and the machine's cores are its trials'.

Threads of BLAS that wait for each other beside trials that train made a second of work forty (measured on two
cores with four jobs).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import cache
from typing import ParamSpec, TypeVar

from threadpoolctl import ThreadpoolController

_Given = ParamSpec("_Given")
_Returned = TypeVar("_Returned")


def one_thread(call: Callable[_Given, _Returned]) -> Callable[_Given, _Returned]:
    """The same function, with BLAS held to one thread while it runs."""

    @functools.wraps(call)
    def held(*args: _Given.args, **kwargs: _Given.kwargs) -> _Returned:
        with _controller().limit(limits=1, user_api="blas"):
            return call(*args, **kwargs)

    return held


@cache
def _controller() -> ThreadpoolController:
    """Of the libraries that are loaded once NumPy is; looking for them takes milliseconds."""
    return ThreadpoolController()
