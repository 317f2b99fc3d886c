"""python -m gptcls.export: the command line."""

from gptcls.common import cli
from gptcls.export.run import ExportConfig, export


def main() -> None:
    cli.run(ExportConfig, export)


if __name__ == "__main__":
    main()
