"""`orionbed keys`: makes and shows the keys that peers sign with."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orionbed.cli.ending import InputError
from orionbed.cli.options import JsonOption

if TYPE_CHECKING:
    from orionbed.keys import Key

DEFAULT_FOLDER = Path("keys")


def keys(
    action: Annotated[str, typer.Argument(metavar="ACTION", help="make or show.")],
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME...", help="Of keys to make, like s00r0; to show, files or folders of keys."),
    ],
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where keys are made.")] = DEFAULT_FOLDER,
    force: Annotated[bool, typer.Option("--force", help="Replace keys that are there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make Ed25519 keys, or show their fingerprints.

    A key is two files: NAME.key stays where it is, NAME.pub is for those who are to know it. A file of known keys, for
    --trusted, is such .pub files one after the other.
    """
    if action == "make":
        rows = _made(names, out, force=force)
    elif action == "show":
        rows = [row for name in names for row in _shown(Path(name))]
    else:
        raise InputError(f"keys: '{action}' is nothing to do with keys; make or show them")
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        typer.echo(f"{row['name']:<{width}}  {row['fingerprint']}  {row['file']}")


def _made(names: list[str], out: Path, *, force: bool) -> list[dict[str, Any]]:
    from orionbed.keys import PRIVATE, PUBLIC, Key

    made = [Key.new(name) for name in dict.fromkeys(names)]
    for key in made if not force else []:
        for path in (out / f"{key.name}{suffix}" for suffix in (PRIVATE, PUBLIC)):
            if path.exists() or path.is_symlink():
                raise InputError(f"{path}: it is there, nothing was made; --force replaces it, for good")
    return [_row(key, key.write(out, force=force)[0]) for key in made]


def _shown(path: Path) -> list[dict[str, Any]]:
    from orionbed.keys import PRIVATE, PUBLIC, Key, Trusted

    if path.is_dir():
        inside = sorted(each for each in path.iterdir() if each.suffix in {PRIVATE, PUBLIC})
        if not inside:
            raise InputError(f"{path}: no keys there; orionbed keys make NAME --out {path}")
        return [row for each in inside for row in _shown(each)]
    if path.suffix == PRIVATE:
        return [_row(Key.read(path), path)]
    known = Trusted.read(path).fingerprints
    return [{"name": name, "fingerprint": known[name], "file": str(path)} for name in known]


def _row(key: "Key", path: Path) -> dict[str, Any]:
    return {"name": key.name, "fingerprint": key.fingerprint, "file": str(path)}
