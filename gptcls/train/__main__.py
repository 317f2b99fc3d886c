"""python -m gptcls.train: the command line."""

import shlex

from gptcls.common import cli
from gptcls.common.console import escaped, say
from gptcls.evaluation import report
from gptcls.pretrain.adapt import AdaptedConfig, adapt_and_train
from gptcls.train.advice import advice


def main() -> None:
    """Parse, train, print the table and what would help next."""
    cli.run(AdaptedConfig, _train_and_print)


def _train_and_print(config: AdaptedConfig) -> None:
    run = adapt_and_train(config, explicit=cli.given_options())
    if run.folder is None:  # the first of several processes speaks for all
        return
    say(report.scores_table(run.classifier.task, run.scores, run.baselines))
    if said := advice(run):
        say(f"\nwould probably help next: {said}")
    folder = escaped(str(run.folder))
    given = '"…"' if run.classifier.fields == 1 else "--data FILE --out FILE"
    say(f"\nsaved in {folder}; try: {cli.command('classify')} --model {shlex.quote(folder)} {given}")


if __name__ == "__main__":
    main()
