"""Several texts mixed by weight; bits per byte of the tokens that were scored."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import save_tiny_model
from tli.data.batches import Batches, open_tokens
from tli.data.mixture import MixedBatches, Mixture, allotted, open_mixture, whole_weights
from tli.data.portions import Portion, portion_problems, shares
from tli.data.settings import DataSettings
from tli.data.token_bytes import TokenBytes, bytes_of, token_bytes
from tli.errors import DataError, InputError
from tli.models.base import find
from tli.models.loading import load_model
from tli.training.evaluate import evaluate
from tli.training.feed import Feed
from tli.training.heldout import HeldOut, measure
from tli.training.loop import Training
from tli.training.losses import token_losses
from tli.training.ranks import Ranks
from tli.training.recipe import Recipe

Tiny = Callable[[str], Path]
KOREAN = "층을 넣은 모델은 더 깊다. 가나다라 마바사 아자차카 타파하."


def written(folder: Path, name: str, line: str, count: int = 300) -> str:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(f'{{"text": "{line} {name} {n}"}}\n' for n in range(count)))
    return str(path)


def portions(folder: Path, **more: Any) -> list[Portion]:
    web = DataSettings(source=written(folder, "web", "bottles of beer"), heldout_fraction=0.2)
    code = DataSettings(source=written(folder, "code", "def f(x): return"), heldout_fraction=0.2)
    return [
        Portion("web", web, more.get("web", 0.7), "data.sources.web"),
        Portion("code", code, more.get("code", 0.3), "data.sources.code"),
    ]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Mixture:
    folder = tmp_path_factory.mktemp("mixed")
    base = find(str(save_tiny_model(folder / "base")))
    kept = DataSettings(source=written(folder, "kept", KOREAN, 40), heldout_fraction=0.99)
    every = [*portions(folder), Portion("general", kept, None, "data.measured_only.general")]
    return open_mixture(every, base, folder / "tokens")


@pytest.mark.parametrize("weights", [[7, 3], [1, 1], [1, 1, 1], [50, 3, 1, 46], [999, 1]])
def test_every_row_has_its_source_and_shares_are_exact_at_any_step(weights: list[int]) -> None:
    total, before = sum(weights), [0] * len(weights)
    for rows in range(1, 3 * total if total < 200 else 1200):
        now = allotted(rows, weights)
        assert sum(now) == rows
        assert sorted(b - a for a, b in zip(before, now, strict=True))[-2:] == [
            0,
            1,
        ]  # one more, of one source
        assert all(abs(n - rows * w / total) <= len(weights) / 2 for n, w in zip(now, weights, strict=True))
        before = now
    assert allotted(10**12 * total, weights) == [10**12 * weight for weight in weights]


def test_weights_are_as_they_are_written(tmp_path: Path) -> None:
    assert whole_weights(portions(tmp_path, web=0.1, code=0.2)) == [1, 2]
    assert whole_weights(portions(tmp_path, web=70.0, code=30.0)) == [7, 3]
    assert shares(portions(tmp_path, web=3.0, code=1.0)) == {"web": 0.75, "code": 0.25}


def test_batches_have_the_proportion_and_each_source_the_order_it_has_alone(mixed: Mixture) -> None:
    batches = mixed.batches(sequence_length=8, batch_tokens=80, seed=3)
    web, code = (mixed.tokens[name] for name in ("web", "code"))
    alone = {name: Batches(tokens.train, 8, 1, 3) for name, tokens in (("web", web), ("code", code))}
    seen: Counter[str] = Counter()
    for step in range(30):
        batch = batches[step]
        assert batch.shape == (10, 9)
        for row in batch:
            name = next(n for n in alone if np.array_equal(alone[n][seen[n]][0], row))
            seen[name] += 1
    assert seen == {"web": 210, "code": 90}
    again = mixed.batches(sequence_length=8, batch_tokens=80, seed=3)
    assert np.array_equal(again[29], batches[29])  # a step is begun at without those before it
    assert not np.array_equal(mixed.batches(sequence_length=8, batch_tokens=80, seed=4)[29], batches[29])


def test_ranks_divide_the_batch_of_one_process(mixed: Mixture) -> None:
    batches = mixed.batches(sequence_length=8, batch_tokens=80, seed=3)
    parts = [Feed(batches, torch.device("cpu"), Ranks(rank, 2)).take(4)[0] for rank in range(2)]
    assert np.array_equal(torch.cat(parts).numpy(), batches[4])


def test_a_source_that_is_used_up_begins_again_in_another_order() -> None:
    streams = [Batches(np.arange(25), 8, 1, 0), Batches(np.arange(1000, 2000), 8, 1, 0)]
    batches = MixedBatches(streams, [1, 1], 8)
    short = [row[0] for step in range(6) for row in batches[step] if row[0] < 1000]
    assert len(short) == 24
    assert all(sorted(short[at : at + 3]) == [0, 8, 16] for at in range(0, 24, 3))
    assert len({tuple(short[at : at + 3]) for at in range(0, 24, 3)}) > 1


def test_held_out_tokens_are_shared_evenly_and_none_is_trained_on(mixed: Mixture) -> None:
    windows = mixed.heldout_windows(sequence_length=8, eval_tokens=96)
    assert {name: len(each) for name, each in windows.items()} == {"web": 4, "code": 4, "general": 4}
    for name in ("web", "code"):
        trained = {
            bytes(row) for row in np.lib.stride_tricks.sliding_window_view(mixed.tokens[name].train, 9)
        }
        whole = open_windows(mixed.tokens[name].heldout)
        assert not any(bytes(row) in trained for row in whole)
    test = mixed.test_windows(sequence_length=8, test_tokens=96)
    assert test.keys() == windows.keys()


def open_windows(ids: np.ndarray) -> list[np.ndarray]:
    """Stretches of 9 tokens that hold the number of a document, which no other one has."""
    text = bytes(int(i) for i in ids if i < 256)
    return [ids[at : at + 40] for at in range(0, len(text) - 40, 41)]


def test_documents_are_packed_by_source(tmp_path: Path) -> None:
    base = find(str(save_tiny_model(tmp_path / "base")))
    packed = [
        replace(each, settings=replace(each.settings, packing="documents")) for each in portions(tmp_path)
    ]
    found = open_mixture(packed, base, tmp_path / "tokens")
    batches = found.batches(sequence_length=24, batch_tokens=240, seed=0)
    assert batches.packed
    assert batches[0].shape == (10, 25, 2)
    starts = batches[0][:, 1:, 1] == 0
    assert starts.any()  # of documents within windows, in both sources
    assert {row.shape for row in found.heldout_windows(sequence_length=24, eval_tokens=96).values()} == {
        (2, 25, 2)
    }


def test_another_weight_makes_no_token_file_anew(tmp_path: Path) -> None:
    base = find(str(save_tiny_model(tmp_path / "base")))
    cache = tmp_path / "tokens"
    web, code = portions(tmp_path)
    first = open_mixture([web, code], base, cache)
    made = {path: path.stat().st_mtime_ns for path in cache.glob("*/train.bin")}
    second = open_mixture([replace(web, weight=0.5), code], base, cache)
    assert {path: path.stat().st_mtime_ns for path in cache.glob("*/train.bin")} == made
    assert len(made) == 2
    assert first.digest != second.digest  # their weighted losses are those of different things
    alone = [Portion("source", web.settings)]
    single = open_tokens(alone[0].settings, base, cache)
    one = open_mixture(alone, base, cache)
    assert one.digest == single.digest
    given = {"sequence_length": 8, "batch_tokens": 80, "seed": 1}
    assert np.array_equal(one.batches(**given)[5], single.batches(**given)[5])


def test_problems_of_several_texts_come_at_once_at_their_places(tmp_path: Path) -> None:
    web, code = portions(tmp_path, web=-1.0, code=float("nan"))
    gone = Portion("gone", DataSettings(source="nowhere/*.txt"), 1.0, "data.sources.gone")
    again = Portion("general", web.settings, None, "data.measured_only.general")
    found = portion_problems([web, code, gone, again])
    assert [problem.where for problem in found] == [
        "data.sources.web.weight",
        "data.sources.code.weight",
        "data.sources.gone.source",
        "data.measured_only.general.source",
    ]
    assert "'web'" in found[-1].got
    base = find(str(save_tiny_model(tmp_path / "base")))
    with pytest.raises(InputError) as caught:
        open_mixture([web, again], base, tmp_path / "tokens")
    assert len(caught.value.problems) == 2
    assert not (tmp_path / "tokens").exists()


@pytest.mark.parametrize("more", ["", '{"text": "and one more"}\n'])
def test_a_copy_of_a_trained_text_is_no_text_of_its_own(tmp_path: Path, more: str) -> None:
    """Byte for byte it is found before a token is made, else by the passages that it holds out."""
    web, code = portions(tmp_path)
    copy = tmp_path / "copy.jsonl"
    copy.write_text(Path(web.settings.source).read_text() + more)
    kept = DataSettings(source=str(copy), heldout_fraction=0.99)
    base = find(str(save_tiny_model(tmp_path / "base")))
    with pytest.raises(DataError) as caught:
        open_mixture(
            [web, code, Portion("kept", kept, None, "data.measured_only.kept")], base, tmp_path / "t"
        )
    (problem,) = caught.value.problems
    assert problem.where == "data.measured_only.kept.source"
    assert "'web'" in problem.got
    assert (tmp_path / "t").exists() == bool(more)


def test_too_little_text_is_told_at_the_place_of_its_source(tmp_path: Path) -> None:
    web, code = portions(tmp_path)
    base = find(str(save_tiny_model(tmp_path / "base")))
    found = open_mixture([web, code], base, tmp_path / "tokens")
    with pytest.raises(DataError) as caught:
        found.heldout_windows(sequence_length=5000, eval_tokens=10_000)
    assert caught.value.problems[0].where == "data.sources.web.heldout"
    same = tmp_path / "same.jsonl"
    same.write_text('{"text": "again"}\n' * 9)
    kept = Portion("kept", DataSettings(source=str(same)), None, "data.measured_only.kept")
    with pytest.raises(DataError) as caught:
        open_mixture([web, kept], base, tmp_path / "tokens")
    (problem,) = caught.value.problems
    assert problem.where == "data.measured_only.kept.source"
    assert problem.remedy == "other text"  # and no held-out text, which a text that is only measured has not


def test_several_texts_are_measured_in_one_go_and_the_mean_is_weighted(
    mixed: Mixture, tiny_model: Tiny
) -> None:
    model = load_model(tiny_model("llama"))
    windows = mixed.heldout_windows(sequence_length=16, eval_tokens=192)
    heldout = HeldOut(windows, mixed.shares)
    found = measure(model, heldout)
    alone = {name: evaluate(model, each).loss for name, each in windows.items()}
    assert {name: each.loss for name, each in found.texts.items()} == alone
    assert found.loss == pytest.approx(0.7 * alone["web"] + 0.3 * alone["code"], rel=1e-12)
    recipe = Recipe(tokens=320, batch_tokens=160)
    batches = mixed.batches(sequence_length=16, batch_tokens=160, seed=0)
    first, last = Training(model, recipe, batches, heldout).run([0, 2])
    assert (first.eval_loss, first.texts) == (found.loss, found.texts)
    assert last.texts["web"].loss < first.texts["web"].loss
    assert last.eval_loss == pytest.approx(0.7 * last.texts["web"].loss + 0.3 * last.texts["code"].loss)


def test_weights_of_other_texts_are_refused(mixed: Mixture) -> None:
    windows = mixed.heldout_windows(sequence_length=16, eval_tokens=192)
    with pytest.raises(InputError) as caught:
        HeldOut(windows, {"elsewhere": 1.0})
    assert caught.value.problems[0].where == "heldout.weights"


# -- bits per byte --------------------------------------------------------------------------------------------


def byte_level(texts: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", bos_token="<|begin|>")


def byte_fallback(texts: list[str]) -> Any:
    """As Llama-2's: a space is put before a text, and what is not in the vocabulary falls to single bytes."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    names = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        "a",
        "b",
        "가",
        "나",
        "é",
    ]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={**{name: at for at, name in enumerate(names)}, "▁가": len(names)},
            merges=[("▁", "가")],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


@pytest.mark.parametrize("made", [byte_level, byte_fallback])
@pytest.mark.parametrize("text", [KOREAN, "가나 ab é다", "a b c\n\n  가", "naïve 😀"])
def test_bytes_of_tokens_are_those_of_the_text(made: Callable[[list[str]], Any], text: str) -> None:
    tokenizer = made([KOREAN, text])
    sizes = bytes_of(tokenizer)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    window = np.asarray([[begin, *ids, end, *ids, end]])
    assert sizes.count(window) == 2 * len(text.encode())  # neither begin nor end, nor a space put before
    assert sizes.scored(window).sum() == 2 * len(ids)
    assert sizes.prefix == (made is byte_fallback)
    first = sizes.lengths[ids[0]] - sizes.prefix  # of the text, in a token that is not predicted
    assert sizes.count(window[:, 1:]) == 2 * len(text.encode()) - first


def test_bits_per_byte_are_those_worked_out_by_hand(tiny_model: Tiny) -> None:
    model = load_model(tiny_model("llama"))
    sizes = token_bytes(tiny_model("llama"))
    from tli.models.loading import load_tokenizer

    tokenizer = load_tokenizer(tiny_model("llama"))
    ids = tokenizer(KOREAN, add_special_tokens=False)["input_ids"]
    assert len(ids) == len(KOREAN.encode())  # a byte a token
    half = len(ids) // 2
    window = np.asarray(
        [[*ids[:half], tokenizer.eos_token_id, *ids[half : 2 * half], tokenizer.eos_token_id]]
    )
    with torch.no_grad():
        losses = token_losses(model, torch.as_tensor(window)).double().numpy()
    text = window[0, 1:] != tokenizer.eos_token_id
    nats, size = losses[text].sum(), len(KOREAN.encode()[1 : 2 * half])
    found = evaluate(model, window, sizes=sizes)
    assert found.bits_per_byte == pytest.approx(nats / math.log(2) / size, rel=1e-6)
    assert found.loss == pytest.approx(losses.mean(), rel=1e-6)  # of all tokens, special ones too
    assert found.bits_per_byte != pytest.approx(losses.sum() / math.log(2) / size, rel=1e-4)


def test_the_first_token_of_a_document_counts_for_nothing_where_it_is_not_predicted() -> None:
    sizes = TokenBytes(np.asarray([0, 1, 3]), np.asarray([True, False, False]))
    packed = np.stack([np.asarray([[1, 2, 0, 2, 1]]), np.asarray([[0, 1, 2, 0, 1]])], axis=-1)
    assert sizes.scored(packed).tolist() == [[True, False, False, True]]
    assert sizes.count(packed) == 4
