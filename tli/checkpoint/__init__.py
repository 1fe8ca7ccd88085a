"""Safetensors checkpoints as byte ranges, read and written without loading a tensor.

Promises: a header is checked before it is trusted, memory does not grow with the checkpoint, and what is
written is whole or not there. Never imports torch at load, never opens a pickle.
"""

__all__ = ["atomic", "copying", "header", "reader", "tensors", "writer"]
