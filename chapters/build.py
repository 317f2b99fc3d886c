"""``python -m chapters.build``: the course's notebooks, built from its chapters by chapters.notebooks."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from gptcls.common import cli
from gptcls.common.extras import needed
from gptcls.common.files import atomic_file
from gptcls.core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Options:
    """Build the course's notebooks from its chapters, executing every cell."""

    chapters: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Numbers or names, such as 3 or 03_gpt; all by default."""
    check: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Execute nothing and write nothing; fail where the cells of a notebook are not those of its chapter."""
    time: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Take new timings, also where the code has not changed."""


def main(options: Options) -> None:
    """Build or check, printing one line a chapter."""
    with needed("course", "the course"):
        from chapters import notebooks
    paths = notebooks.find_chapters(options.chapters)
    if options.check and options.time:
        raise InputError("--check executes nothing, so there is nothing to --time: give one of the two")
    if options.check:
        if stale := notebooks.stale_notebooks(paths, everything=not options.chapters):
            raise InputError(f"{', '.join(stale)} not as built: run python -m chapters.build and commit")
        print(f"{len(paths)} notebooks match their chapters")
        return
    for path in paths:
        target = notebooks.notebook_path(path)
        text = notebooks.executed(path, time=options.time)
        with atomic_file(target) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
        if (picture := notebooks.front_picture(path)) is not None:
            with atomic_file(notebooks.NOTEBOOKS / "front.png") as temporary:
                temporary.write_bytes(picture)
        print(f"{target.relative_to(notebooks.ROOT)}  {len(text) / 1024:.0f} KB", flush=True)


if __name__ == "__main__":
    cli.run(Options, main)
