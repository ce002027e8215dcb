"""`orionbed verify-checkpoint`: says what a checkpoint is, whether it is whole, and who signed it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orionbed.cli.ending import EXIT_FAILED
from orionbed.cli.options import JsonOption

if TYPE_CHECKING:
    from orionbed.checkpoints.manifest import Signature
    from orionbed.checkpoints.survey import Survey
    from orionbed.checkpoints.verifying import Examined


def verify_checkpoint(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A checkpoint, or the folder of a run's checkpoints: then all.")
    ],
    *,
    trusted: Annotated[
        Path | None,
        typer.Option(
            "--trusted", metavar="FILE", help="Known public keys, or a folder of .pub files: no others will do."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check hashes, signatures and completeness of a checkpoint.

    Exit code 0: all is well; 1: something is wrong, all of which is printed; 2: there is no checkpoint.
    """
    from orionbed.checkpoints.survey import survey
    from orionbed.keys import Trusted

    known = None if trusted is None else Trusted.read(trusted)
    found = survey(folder, known)
    if as_json:
        typer.echo(json.dumps(_plain(found), indent=2))
    else:
        for line in _lines(found, known=known is not None):
            # Whoever made the checkpoint has named what is in it: nothing of it steers the terminal.
            typer.echo("".join(sign if sign.isprintable() else "?" for sign in line))
    if not found.good:
        raise typer.Exit(EXIT_FAILED)


def _lines(found: "Survey", *, known: bool) -> Iterator[str]:
    for each in found.found:
        yield from _described(each)
        yield from (f"--  {problem}" for problem in each.problems)
    yield from (f"--  {problem}" for problem in found.problems)
    num_problems = len(found.problems) + sum(len(each.problems) for each in found.found)
    remarks = dict.fromkeys([*(remark for each in found.found for remark in each.remarks), *found.remarks])
    yield from (f"note: {remark}" for remark in remarks)
    if found.good:
        yield "ok  " + ("whole, and signed by known keys" if known else "whole")
    else:
        yield f"refused: {num_problems} {'problem' if num_problems == 1 else 'problems'}"


def _described(each: "Examined") -> Iterator[str]:
    yield f"{each.path}"
    if each.manifest is None:
        return
    about = each.manifest.about
    yield "    " + ", ".join(f"{key} {_short(about[key])}" for key in about)
    yield f"    signed as a whole by {_signer(each.manifest.signature)}"
    width = max((len(shard.name) for shard in each.manifest.shards), default=0)
    for shard in each.manifest.shards:
        names = ", ".join(entry.name for entry in shard.entries)
        yield f"    {shard.name:<{width}}  {shard.bytes:,} bytes  {names}  signed by {_signer(shard.signature)}"


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:12]}..." if len(text) == 64 else text


def _signer(signature: "Signature | None") -> str:
    return "nobody" if signature is None else f"{signature.by} {signature.fingerprint}"


def _plain(found: "Survey") -> dict[str, Any]:
    return {
        "good": found.good,
        "problems": found.problems,
        "remarks": found.remarks,
        "checkpoints": [
            {
                "path": str(each.path),
                "problems": each.problems,
                "remarks": each.remarks,
                "about": None if each.manifest is None else each.manifest.about,
                "signed_by": None if each.manifest is None else _plain_signer(each.manifest.signature),
                "shards": []
                if each.manifest is None
                else [
                    {
                        "name": shard.name,
                        "file": shard.file,
                        "bytes": shard.bytes,
                        "sha256": shard.sha256,
                        "entries": [entry.name for entry in shard.entries],
                        "signed_by": _plain_signer(shard.signature),
                    }
                    for shard in each.manifest.shards
                ],
            }
            for each in found.found
        ],
    }


def _plain_signer(signature: "Signature | None") -> dict[str, str] | None:
    return None if signature is None else {"name": signature.by, "fingerprint": signature.fingerprint}
