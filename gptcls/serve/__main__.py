"""python -m gptcls.serve: the command line."""

from gptcls.common import cli
from gptcls.serve.run import ServeConfig, serve


def main() -> None:
    cli.run(ServeConfig, serve)


if __name__ == "__main__":
    main()
