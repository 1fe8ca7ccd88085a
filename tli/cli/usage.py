"""What argparse says of a mistyped command, as a problem like every other."""

from __future__ import annotations

import re

from tli.errors import Problem

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130

_NAMED = re.compile(r"argument (?P<option>[^:]+): (?P<said>.+)", re.DOTALL)


_INVALID = re.compile(
    r"invalid (?P<kind>[\w.]+) value: (?P<got>.+)"
    r"|invalid choice: (?P<word>.+?) \(choose from (?P<choices>.+)\)",
    re.DOTALL,
)


SHAPED = "; expected "


_LACKING = "the following arguments are required: "


_UNKNOWN = "unrecognized arguments: "


_KINDS = {"int": "a whole number", "float": "a number"}


class UsageError(SystemExit):
    """Words that are no command of ours; already printed."""

    def __init__(self, message: str, problem: Problem) -> None:
        super().__init__(BAD_INPUT)
        self.message, self.problem = message, problem


def problem_of(message: str, usage: str) -> Problem:
    """What argparse says of a command line, in the shape of every other mistake."""
    message, _, meant = message.partition("; did you mean ")
    usage = meant.removesuffix("?") or usage
    named = _NAMED.fullmatch(message)
    where, said = (named["option"], named["said"]) if named else ("command line", message)
    if SHAPED in said:  # as `path` says it
        got, _, rest = said.removeprefix("got ").partition(SHAPED)
        expected, _, remedy = rest.partition("; try ")
        return Problem(where, got, expected, remedy)
    if said.startswith(_LACKING):
        return Problem(said.removeprefix(_LACKING), "nothing", "a value for each", usage)
    if said.startswith(_UNKNOWN):
        got = "words that this command does not know"
        return Problem(said.removeprefix(_UNKNOWN), got, "its options", usage)
    if invalid := _INVALID.fullmatch(said):
        if invalid["choices"]:
            return Problem(where, invalid["word"], f"one of {invalid['choices']}", usage)
        kind = invalid["kind"]
        return Problem(where, invalid["got"], _KINDS.get(kind, f"a value of {kind}"), usage)
    return Problem(where, said, "what its help says", usage)
