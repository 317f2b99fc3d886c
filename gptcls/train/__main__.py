"""python -m gptcls.train: the command line."""

import shlex

from gptcls.common import cli
from gptcls.evaluation import report
from gptcls.train.advice import advice
from gptcls.train.config import TrainConfig
from gptcls.train.run import train


def main() -> None:
    """Parse, train, print the table and what would help next."""
    cli.run(TrainConfig, _train_and_print)


def _train_and_print(config: TrainConfig) -> None:
    run = train(config, explicit=cli.given_options())
    print(report.scores_table(run.classifier.task, run.scores, run.baselines))
    if said := advice(run):
        print(f"\nwould probably help next: {said}")
    folder = shlex.quote(str(run.folder))
    print(f'\nsaved in {run.folder}; try: {cli.command("classify")} --model {folder} "…"')


if __name__ == "__main__":
    main()
