"""`Family`: the facts of one architecture that layer injection needs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

_LAYER = re.compile(r"(.+?)\.(\d{1,9})\.", re.ASCII)  # longer numbers are no layer's
_NORM = re.compile(r"norm|\bln|_ln|layer_scale")
_TOWERS = re.compile(r"vision|image|audio|patcher|mtp|encoder\.layers|embed")  # beside the language model


@dataclass(frozen=True)
class Family:
    """The facts of one `model_type`; names are those in a layer, in memory or in a file, `*` for any number.

    residual_writers  modules whose outputs are added to the residual stream: with their weights and biases at
                      zero the layer hands its input on unchanged
    post_norms        norms between such a module and the stream; a scale of the output is undone by them, so
                      the residual scale acts on their gain
    gain_offset       what is added to the stored gain of a norm: 1 where it is stored as the w of 1 + w
    plain_norms       norms of a layer whose gain is stored as it is even so
    multipliers       tensors that the stream itself is multiplied with, one where nothing is to change
    layers            the list of layers in the module tree
    sectioned         the language model's configuration is the section `text_config` of the whole
    depth_keys        keys of the configuration that hold the number of layers
    lists             keys of the configuration with an entry for each layer, which a file may leave out
    lists_vary_with   left-out lists have equal entries while this key is false; None: they vary
    periods           pairs of keys, period and offset, by which layers of two kinds alternate
    per_layer_tensors tensors outside the layers with a part for each layer, and the axis of the parts
    fixed_layer       "first" or "last": that layer has a form of its own, so it stays where it is, uncopied
    shared_kinds      kinds of layers, by the first of `lists`, that share weights, so they cannot be copied
    mixed             layers are of several kinds, with other tensors each
    buffers           in a layer of older files, but not weights: copied whatever the init
    deviation         standard deviation of freshly drawn matrices where the configuration names none; None
                      where the class calculates it
    drawn_by_depth    the initialiser divides the deviation of `residual_writers` by sqrt(2 * depth)
    no_scale          why the residual scale cannot be chosen: None, or the reason why only copies will do
    only_zero         why the scale can only be 0 or 1
    refusals          key of the configuration that must be false or empty, and why
    not_loaded        why AutoModelForCausalLM does not load what is saved: it can be grown, but not be
                      trained
    refused           why no layer can be injected at all
    """

    model_type: str
    residual_writers: tuple[str, ...] = ()
    post_norms: tuple[str, ...] = ()
    gain_offset: float = 0.0
    plain_norms: tuple[str, ...] = ()
    multipliers: tuple[str, ...] = ()
    layers: str = "model.layers"
    sectioned: bool = False
    depth_keys: tuple[str, ...] = ("num_hidden_layers",)
    lists: tuple[str, ...] = ()
    lists_vary_with: str | None = None
    periods: tuple[tuple[str, str | None], ...] = ()
    per_layer_tensors: tuple[tuple[str, int], ...] = ()
    fixed_layer: str | None = None
    shared_kinds: tuple[str, ...] = ()
    mixed: bool = False
    buffers: tuple[str, ...] = ()
    deviation: float | None = 0.02
    drawn_by_depth: bool = False
    no_scale: str | None = None
    only_zero: str | None = None
    refusals: tuple[tuple[str, str], ...] = ()
    head_apart: bool = True
    not_loaded: str | None = None
    refused: str | None = None

    def writes_residual(self, name: str) -> bool:
        """Whether tensor `name` of a layer (`mlp.down_proj.weight`) makes what is added to the stream."""
        return _in(name, self._written)

    def is_gain(self, name: str) -> bool:
        """Whether tensor `name` of a layer is the gain or bias of a norm behind a sublayer."""
        return _in(name, self._gained)

    def is_norm(self, name: str) -> bool:
        """Whether tensor `name` of a layer is the gain of any norm."""
        return name.endswith("weight") and _NORM.search(name) is not None

    def offset(self, name: str) -> float:
        """What is added to stored tensor `name` of a layer before it takes effect."""
        if name in self.multipliers:
            return -1.0  # so that a scale of zero makes it one
        plain = name.rpartition(".")[0] in self.plain_norms
        return self.gain_offset if self.is_norm(name) and not plain else 0.0

    def is_multiplier(self, name: str) -> bool:
        """Whether the stream itself is multiplied with tensor `name` of a layer."""
        return name in self.multipliers

    def is_buffer(self, name: str) -> bool:
        """Whether tensor `name` of a layer is no weight."""
        return name in self.buffers

    def axis_of_layers(self, name: str) -> int | None:
        """Along which a tensor outside the layers has a part for each layer; None where it has none."""
        return next((axis for end, axis in self.per_layer_tensors if name.endswith(end)), None)

    def stored_layers(self, names: Iterable[str], depth: int) -> str:
        """Where the layers are in the names of a file: files differ from the module tree, and each other."""
        positions: dict[str, set[int]] = {}
        for name in names:
            match = _LAYER.match(name)
            if match:
                positions.setdefault(match[1], set()).add(int(match[2]))
        fits = [prefix for prefix, numbers in positions.items() if sum(n < depth for n in numbers) == depth]
        if self.layers in fits:
            return self.layers
        best = [prefix for prefix in fits if not _TOWERS.search(prefix)] or fits
        return min(best, key=len, default=self.layers)

    @cached_property
    def _written(self) -> re.Pattern[str]:
        return _pattern(self.residual_writers)

    @cached_property
    def _gained(self) -> re.Pattern[str]:
        return _pattern(self.post_norms)


def _pattern(names: Iterable[str]) -> re.Pattern[str]:
    texts = [re.escape(name).replace(r"\*", r"\d+") for name in names]
    return re.compile("|".join(texts) if texts else r"(?!)")


def _in(name: str, pattern: re.Pattern[str]) -> bool:
    """Whether a tensor is one of the named, or a weight or bias of a named module."""
    return bool(pattern.fullmatch(name) or pattern.fullmatch(name.rpartition(".")[0]))


Families = Mapping[str, Family]
