"""Text to tokens, in a stream and by several processes; token files to seeded batches.

Promises: the same settings give the same token files, one seed the same batches in the same order, and memory
does not grow with the text. Never trains on a document that is
held out or test text.
"""

__all__ = [
    "amounts",
    "batches",
    "corpus",
    "dataset",
    "encode",
    "manifests",
    "mixture",
    "overlap",
    "packing",
    "portions",
    "settings",
    "sides",
    "sources",
    "split",
    "starts",
    "token_bytes",
    "tokenise",
    "tokenizer_check",
]
