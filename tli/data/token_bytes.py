"""How many bytes of text each token stands for, so that losses compare across tokenizers.

Bits per byte divide the loss of the tokens that were scored by the bytes of just those tokens. A special
token, such as the end of a text, stands for no text: neither its loss nor its bytes count.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase

_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")  # one byte, in a vocabulary with byte fallback
_SPACE = "\u2581"  # a space, in vocabularies of SentencePiece's kind
_CONTINUED = "##"  # begins a token of WordPiece that goes on with a word
_PROBE = "a"


class TokenBytes:
    """Bytes by token id.

    Attributes:
        lengths: UTF-8 bytes of each token, shape [ids]; 0 of special ones.
        special: whether a token is one, shape [ids].
        prefix: bytes that the first token of a document has and the text has not: a space put before it.
    """

    def __init__(self, lengths: np.ndarray, special: np.ndarray, prefix: int = 0) -> None:
        self.lengths, self.special, self.prefix = lengths, special, prefix

    def scored(self, windows: np.ndarray) -> np.ndarray:
        """Which predicted tokens are text, shape [windows, sequence_length].

        Args:
            windows: token ids, shape [windows, sequence_length + 1], or packed (`tli.data.packing`).
        """
        ids = windows if windows.ndim == 2 else windows[..., 0]
        text: np.ndarray = ~self.special[ids[:, 1:]]
        if windows.ndim == 3:
            text &= windows[:, 1:, 1] != 0
        return text

    def count(self, windows: np.ndarray) -> int:
        """UTF-8 bytes of the predicted tokens of windows, special tokens left out."""
        ids = windows if windows.ndim == 2 else windows[..., 0]
        scored = self.scored(windows)
        first = scored & self.special[ids[:, :-1]]  # of a document
        return int((self.lengths[ids[:, 1:]] * scored).sum()) - self.prefix * int(first.sum())


def token_bytes(folder: Path) -> TokenBytes:
    """The bytes of every token of the tokenizer in a model's folder.

    As the tokenizer writes tokens back: of one that changes text (lower case, Unicode forms), bytes of the
    changed text.

    Raises:
        CheckpointError: there is no tokenizer that can be loaded.
    """
    from tli.models.loading import load_tokenizer

    return bytes_of(load_tokenizer(folder))


def bytes_of(tokenizer: PreTrainedTokenizerBase) -> TokenBytes:
    """The bytes of every token of a tokenizer."""
    import numpy as np

    names = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    added = {number: str(token) for number, token in tokenizer.added_tokens_decoder.items()}
    of_bytes = _is_byte_level(tokenizer)
    lengths = np.zeros(len(names), dtype=np.int64)
    special = np.zeros(len(names), dtype=bool)
    special[[number for number in tokenizer.all_special_ids if number < len(names)]] = True
    for number, name in enumerate(names):
        if name is None or special[number]:
            special[number] = True
        elif number in added:
            lengths[number] = len(added[number].encode())
        else:
            lengths[number] = len(name) if of_bytes else _length(name)
    found = TokenBytes(lengths, special)
    ids = tokenizer(_PROBE, add_special_tokens=False)["input_ids"]
    found.prefix = max(0, int(lengths[ids].sum()) - len(_PROBE.encode()))
    return found


def _is_byte_level(tokenizer: Any) -> bool:
    """Whether every character of a token's name stands for one byte, as in vocabularies of GPT-2's kind."""
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is None:
        return hasattr(tokenizer, "byte_decoder")
    written = json.loads(fast.to_str())
    parts = [written.get("decoder") or {}]
    parts += parts[0].get("decoders", ())
    return any(part.get("type") == "ByteLevel" for part in parts)


def _length(name: str) -> int:
    """Bytes of a token that is written as text, spaces and single bytes apart."""
    if _BYTE.fullmatch(name):
        return 1
    return len(name.removeprefix(_CONTINUED).replace(_SPACE, " ").encode())
