"""YAML as a person means it: values, places, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.errors import SpecError
from sweeps.spec.yaml_source import (
    DEEPEST,
    LARGEST_FILE,
    MOST_VALUES,
    parse_value,
    read_bytes,
    read_file,
    scalar,
)


def read(text: str) -> dict[str, Any]:
    return read_bytes(text.encode(), "f.yaml").values


def lines(text: str | bytes) -> list[str]:
    raw = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(SpecError) as caught:
        read_bytes(raw, "f.yaml")
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("1.0e-3", 1e-3),
        ("1.e3", 1e3),
        (".5", 0.5),
        ("-2.5", -2.5),
        ("+3", 3),
        ("100_000", 100_000),
        ("1_0.5", 10.5),
        ("0", 0),
        ("-0", 0),
        ("0.1", 0.1),
        (".inf", math.inf),
        ("-.Inf", -math.inf),
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("", None),
        # texts, whatever YAML 1.1 says
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("off", "off"),
        ("True", "True"),
        ("1:30", "1:30"),
        ("010", "010"),
        ("0x1f", "0x1f"),
        ("1_", "1_"),
        ("_1", "_1"),
        ("1__0", "1__0"),
        ("e5", "e5"),
        ("1e", "1e"),
        (".", "."),
        ("-", "-"),
        ("inf", "inf"),
        ("nan", "nan"),
        ("2024-01-01", "2024-01-01"),
        ("9" * 5000, "9" * 5000),  # longer than Python would turn into a number
    ],
)
def test_scalar(text: str, value: Any) -> None:
    read_value = scalar(text)
    assert read_value == value
    assert type(read_value) is type(value)


def test_nan() -> None:
    assert math.isnan(scalar(".nan"))


def test_quoted_is_text() -> None:
    assert read("a: '1'\nb: \"true\"\nc: |\n  1e-4\n") == {"a": "1", "b": "true", "c": "1e-4\n"}


def test_names_are_texts() -> None:
    assert read("1: a\ntrue: b\nnull: c") == {"1": "a", "true": "b", "null": "c"}


def test_places_are_of_names_and_items() -> None:
    source = read_bytes(b"a: 1\nb:\n  c.d: [x, {e: 2}]\n", "f.yaml")
    assert source.places == {
        "a": (1, 1),
        "b": (2, 1),
        "b.c.d": (3, 3),
        "b.c.d[0]": (3, 9),
        "b.c.d[1]": (3, 12),
        "b.c.d[1].e": (3, 13),
    }
    assert source.where("b.c.d[1]") == "f.yaml:3:12 b.c.d[1]"


def test_where_of_what_is_missing_is_its_section() -> None:
    source = read_bytes(b"a: 1\nb:\n  c: 2\n", "f.yaml")
    assert source.where("b.nothing.here") == "f.yaml:2:1 b.nothing.here"
    assert source.where("nothing") == "f.yaml:1:1 nothing"


def test_line_ends_and_byte_order_mark() -> None:
    source = read_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n", "f.yaml")
    assert source.values == {"a": 1, "b": 2}
    assert source.places == {"a": (1, 1), "b": (2, 1)}


def test_comments_may_hold_anything() -> None:
    assert read("# \u200b\tx\na: 1 # \u00a0 tab:\t\n") == {"a": 1}


def test_hash_in_a_text_is_no_comment() -> None:
    assert lines('a: "x # \u200b"') == [
        (
            "f.yaml:1:9: got the invisible character U+200B (zero width space); "
            "expected text that can be seen; try typing the line again"
        )
    ]


def test_control_character_in_a_comment_is_refused_without_a_traceback() -> None:
    assert lines("a: 1 # \x07") == [
        "f.yaml:1:8: got the control character U+0007; expected text that can be seen"
    ]


def test_all_problems_of_a_text_at_once() -> None:
    found = lines("a: &x 1\na: *x\nb: !!int 3\n? [q]\n: 1\n")
    assert [line.split(";")[0] for line in found] == [
        "f.yaml:1:4: got the anchor &x",
        "f.yaml:2:1: got 'a' a second time",
        "f.yaml:2:4: got the alias *x",
        "f.yaml:3:4: got the tag tag:yaml.org,2002:int",
        "f.yaml:4:3: got a name that is itself a mapping, a list or an alias",
    ]


def test_merge_key_is_a_plain_name() -> None:
    assert read("a: {<<: {b: 1}}") == {"a": {"<<": {"b": 1}}}


def test_alias_bomb_is_not_expanded() -> None:
    bomb = "a: &a [x]\n" + "".join(
        f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert all("no anchors" in line or "no aliases" in line for line in lines(bomb))


def test_nesting_of_any_depth_ends_quickly() -> None:
    found = lines("a: " + "[" * 200_000)
    assert found == [
        f"f.yaml:1:{3 + DEEPEST}: got more than {DEEPEST} levels of nesting; expected at most three or four"
    ]
    assert read("a: " + "[" * (DEEPEST - 1) + "]" * (DEEPEST - 1))


def test_more_values_than_a_person_writes() -> None:
    (line,) = lines("a: [" + "1," * (MOST_VALUES + 1) + "]")
    assert f"got more than {MOST_VALUES:,} values" in line


def test_file_problems_name_the_file(tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (LARGEST_FILE + 1))
    for path, text in (
        (tmp_path, "a folder"),
        (large, "a file of 1,000,001 bytes"),
        (tmp_path / "no", "cannot be read"),
    ):
        with pytest.raises(SpecError) as caught:
            read_file(path)
        assert str(caught.value).startswith(f"{path}: got ")
        assert text in str(caught.value)


def test_parse_value() -> None:
    assert parse_value("{log: [1e-4, 1e-2]}", "--set x") == {"log": [1e-4, 1e-2]}
    assert parse_value("3", "--set x") == 3
    assert parse_value("", "--set x") is None
    with pytest.raises(SpecError, match=r"^--set x: got the tag"):
        parse_value("!!int 3", "--set x")


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(
        st.characters(min_codepoint=32, max_codepoint=126), max_size=8
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip


@given(st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), plain, min_size=1, max_size=4))
@settings(max_examples=80, deadline=None)
def test_json_reads_as_itself(values: dict[str, Any]) -> None:
    assert read(json.dumps(values)) == values


@given(
    st.text(alphabet="ab:-[]{}#&*!|>'\"%@`,? \n\t\u00a0\u200b01.e", max_size=60).map(str.encode)
    | st.binary(max_size=60)
)
@settings(max_examples=400, deadline=None)
def test_anything_is_read_or_refused(raw: bytes) -> None:
    refused: tuple[str, ...] = ()
    values: object = {}
    try:
        values = read_bytes(raw, "f.yaml").values
    except SpecError as error:
        refused = tuple(str(problem) for problem in error.problems)
    assert isinstance(values, dict)
    assert all(line.startswith("f.yaml") for line in refused)
