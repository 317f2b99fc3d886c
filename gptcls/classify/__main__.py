"""python -m gptcls.classify: the command line."""

from gptcls.classify.run import ClassifyConfig, classify
from gptcls.common import cli


def main() -> None:
    cli.run(ClassifyConfig, classify)


if __name__ == "__main__":
    main()
