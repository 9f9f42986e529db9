"""Trains the weights that ship with the package: each sense on its own, then the association on their frozen features.

What belongs here is one recipe on one machine; learning that is spread over machines is no part of it.
"""

__all__: list[str] = []
