"""`mini-vllm models`: the models that can be used by name, and whether they are here and whole."""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass

from mini_vllm import console
from mini_vllm.errors import ModelLoadError
from mini_vllm.model import embedded
from mini_vllm.model.gguf_header import read_header

PRESENT, VERIFIED, ABSENT, DAMAGED = "present", "verified", "absent", "damaged"


@dataclass(frozen=True)
class Row:
    """One model as this machine has it; `size` in bytes, `context_length` in tokens.

    What is read from the file is None while the file is absent or damaged. `problem` says what is
    wrong and what to do.
    """

    name: str
    state: str
    size: int
    licence: str
    path: str | None = None
    parameters: int | None = None
    quantization: str | None = None
    context_length: int | None = None
    problem: str | None = None


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--verify",
        action="store_true",
        help="check the sha256 of every file; exit with 1 unless all are there and whole",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    rows = [_look_up(model, args.verify) for model in embedded.MODELS.values()]
    if args.json:
        console.emit_json({"models": [asdict(row) for row in rows]})
    else:
        _print_table(rows)
    for row in rows:
        if row.problem is not None:
            console.say(f"{row.name}: {row.problem}")
    wanted = {VERIFIED} if args.verify else {PRESENT, ABSENT}
    return console.EXIT_OK if {row.state for row in rows} <= wanted else console.EXIT_NEGATIVE


def _look_up(model: embedded.EmbeddedModel, verify: bool) -> Row:
    path = embedded.find(model.name)
    if path is None:
        hint = f"not installed; run: {model.install_command}"
        return Row(model.name, ABSENT, model.size, model.licence, problem=hint)
    try:
        embedded.verify(model.name, full=verify)
        header = read_header(path)
    except ModelLoadError as error:
        return Row(model.name, DAMAGED, model.size, model.licence, str(path), problem=str(error))
    return Row(
        model.name,
        VERIFIED if verify else PRESENT,
        model.size,
        model.licence,
        str(path),
        parameters=header.num_parameters,
        quantization=header.quantization,
        context_length=header.context_length,
    )


def _print_table(rows: list[Row]) -> None:
    titles = ("NAME", "STATE", "PARAMETERS", "WEIGHTS", "CONTEXT", "SIZE", "LICENCE", "PATH")
    table = [titles, *(_cells(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        print("  ".join(padded).rstrip())


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.name,
        row.state,
        "-" if row.parameters is None else f"{row.parameters / 1e6:.1f} M",
        row.quantization or "-",
        "-" if row.context_length is None else f"{row.context_length} tokens",
        f"{row.size / 1e6:.1f} MB",
        row.licence,
        row.path or "-",
    )
