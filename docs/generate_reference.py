"""Pages of the reference that are made when the documentation is built: the spec's keys and the commands.

MkDocs calls `on_files` (`hooks` in mkdocs.yml). No text of these pages lies in the repository, so none can
be out of date.
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

ROOT = Path(__file__).parent.parent
_WIDTH = 80  # characters of a line of code
_TYPES = {str: "text", int: "whole number", float: "number", bool: "true or false", NoneType: "null"}
_RANGES = """
## Ranges { #ranges }

Each path under `search` has one of four forms. Both ends are included.

| form | draws |
|---|---|
| `{choice: [1, 2, 4]}` | one of the values |
| `{uniform: [0.1, 0.9]}` | a number, evenly; with `step: 0.1` on a grid |
| `{log: [1.0e-4, 1.0e-2]}` | a number above 0, evenly in its logarithm |
| `{int: [1, 8]}` | a whole number; with `step: 2` every second one |

`when` makes a range conditional: `{uniform: [0.1, 0.9], when: {injection.init: damped}}` is drawn only where
the other path, which is searched too, has that value or one of a list of values.
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages; an event of MkDocs."""
    from mkdocs.structure.files import File

    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))  # the packages of this checkout
    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def pages() -> dict[str, str]:
    """Markdown of every generated page, by its path in `docs/`."""
    from sweeps.cli.arguments import parser as sweeps_parser
    from tli.cli.arguments import parser as tli_parser

    return {
        "reference/spec.md": spec_page(),
        "reference/sweeps-command.md": command_page(sweeps_parser({})),
        "reference/tli-command.md": command_page(tli_parser()),
    }


def spec_page() -> str:
    """Every key of a spec: its type, its default, what may stand there, what it means."""
    from sweeps.spec.model import Spec

    head = (
        "# Spec\n\nEvery key of a spec file. The packaged specs, `sweeps/specs/*.yaml`, are commented "
        "examples. Unknown keys are refused with the nearest known one. A single value can be set on the "
        "command line: `--set budget.trials=40`.\n"
    )
    return head + "".join(_keys(Spec, "")) + _RANGES


def _keys(model: type[BaseModel], prefix: str) -> Iterator[str]:
    """Plain keys of a section first, then its sections, each under a heading of its own."""
    from sweeps.spec.meanings import MEANINGS

    inner = {name: found for name, field in model.model_fields.items() if (found := _section(field))}
    for name, field in model.model_fields.items():
        if name not in inner and name != "search":
            yield _key(f"{prefix}{name}", field, MEANINGS[f"{prefix}{name}"])
    for name, section in inner.items():
        path = f"{prefix}{name}"
        yield f"\n## `{path}` {{ #{path} }}\n\n{MEANINGS[path]}\n"
        if get_origin(model.model_fields[name].annotation) is dict:  # of sections that the user names
            path = f"{path}.NAME"
            yield f"\n## `{path}` {{ #{path} }}\n\n{MEANINGS[path]}\n"
        yield from _keys(section, f"{path}.")
        if path == "trial":
            yield f"\n## `search` {{ #search }}\n\n{MEANINGS['search']}\n"


def _key(path: str, field: FieldInfo, meaning: str) -> str:
    allowed = field.description or ""
    facts = [f"**Type** {_type(field.annotation)}", f"**Default** {_default(field)}"]
    return (
        f"\n### `{path.rpartition('.')[2]}` {{ #{path} }}\n\n{meaning}\n\n"
        f"{' · '.join(facts)}  \n**Allowed** {allowed}\n"
    )


def _section(field: FieldInfo) -> type[BaseModel] | None:
    from pydantic import BaseModel

    for each in (field.annotation, *get_args(field.annotation)):
        if isinstance(each, type) and issubclass(each, BaseModel):
            return each
    return None


def _type(annotation: Any) -> str:
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join(_type(each) for each in get_args(annotation))
    if annotation is Any:
        return "number or text"
    if get_origin(annotation) is not None:  # Literal
        return "text"
    return _TYPES[annotation]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "none, it has to be given"
    default = field.get_default(call_default_factory=True)
    words = {None: "null", True: "true", False: "false"}
    return f"`{words[default] if default is None or isinstance(default, bool) else default}`"


def command_page(parser: argparse.ArgumentParser) -> str:
    """A command: its subcommands with usage, arguments, options and examples, as `-h` has them."""
    (action,) = (each for each in parser._actions if isinstance(each, argparse._SubParsersAction))
    parts = [f"# `{parser.prog}`\n\n{parser.description}\n", _examples(parser), _options(parser)]
    for name, sub in action.choices.items():
        parts.append(f"\n## `{parser.prog} {name}` {{ #{name} }}\n\n{sub.description}\n")
        parts.append(f"\n```text\n{_usage(sub)}\n```\n")
        parts += [_options(sub), _examples(sub)]
    return "".join(parts)


def _usage(parser: argparse.ArgumentParser) -> str:
    """In lines of a fixed width, whatever the terminal's is; an option and its value stay together."""
    text = re.sub(r"\s+", " ", parser.format_usage().removeprefix("usage:")).strip()
    whole = re.sub(r"\[[^\]]*\]", lambda found: found[0].replace(" ", "\0"), text)
    lines = textwrap.wrap(whole, _WIDTH, subsequent_indent="    ", break_on_hyphens=False)
    return "\n".join(lines).replace("\0", " ")


def _options(parser: argparse.ArgumentParser) -> str:
    """A table of what may be given, arguments first, without `-h`, which every command has."""
    formatter = parser._get_formatter()
    rows = []
    for action in sorted(parser._actions, key=lambda each: bool(each.option_strings)):
        if isinstance(action, (argparse._HelpAction, argparse._SubParsersAction)):
            continue
        names = ", ".join(f"`{name}`" for name in action.option_strings)
        value = formatter._format_args(action, _value_name(action)) if action.nargs != 0 else ""
        shown = f"{names} `{value}`" if names and value else names or f"`{value}`"
        text = formatter._expand_help(action) if action.help else ""
        rows.append(f"| {shown} | {_cell(text)} |\n")
    return "\n| argument or option | meaning |\n|---|---|\n" + "".join(rows) if rows else ""


def _value_name(action: argparse.Action) -> str:
    if action.choices is not None:
        return "{" + ",".join(str(choice) for choice in action.choices) + "}"
    return action.dest.upper() if action.option_strings else action.dest


def _cell(text: str) -> str:
    return re.sub(r"([|<>*_])", r"\\\1", text)


def _examples(parser: argparse.ArgumentParser) -> str:
    heading, _, lines = (parser.epilog or "").partition("\n")
    if not lines:
        return ""
    dedented = "\n".join(line.strip() for line in lines.splitlines())
    return f"\n{heading[0].upper()}{heading[1:]}\n\n```text\n{dedented}\n```\n"
