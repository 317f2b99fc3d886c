"""python -m gptcls.pretrain: the command line."""

import shlex

from gptcls.common import cli
from gptcls.common.console import say
from gptcls.pretrain.config import PretrainConfig
from gptcls.pretrain.run import RESULT, pretrain


def main() -> None:
    """Parse, pretrain, print."""
    cli.run(PretrainConfig, _pretrain_and_print)


def _pretrain_and_print(config: PretrainConfig) -> None:
    run = pretrain(config, explicit=cli.given_options())
    if not run.perplexity:  # the first of several processes speaks for all
        return
    rate = run.tokens_seen / run.seconds
    say(f"{run.tokens_seen:,} tokens in {run.seconds:,.0f} s, {rate:,.0f} per second")
    for name, value in run.perplexity.items():
        say(f"held-out perplexity {value:,.1f}  {name}")
    model = shlex.quote(str(run.folder / RESULT))
    say(f"saved in {run.folder}; try: {cli.command('train')} --model {model}")


if __name__ == "__main__":
    main()
