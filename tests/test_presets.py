"""--preset: settings by the network's size and kind and the number of rows, where the user says nothing."""

import json
import math

import pandas as pd
import pytest
from helpers.tiny import ROWS

from gptcls.core.errors import InputError
from gptcls.train.config import TrainConfig
from gptcls.train.presets import MOST, NARROW, preset_settings
from gptcls.train.resolve import resolve, settle
from gptcls.train.run import fit, train


@pytest.mark.parametrize("preset", ["quick", "balanced", "best"])
@pytest.mark.parametrize("width", [None, 256, 768])
def test_more_rows_take_fewer_passes_but_more_steps(preset, width):
    rows = [10, 100, 400, 1000, 5000, 50_000, 10**6]
    passes = [preset_settings(preset, width, n)["epochs"] for n in rows]
    assert passes == sorted(passes, reverse=True)
    assert min(passes) >= 2
    assert max(passes) <= MOST
    seen = [n * p for n, p in zip(rows, passes, strict=True)]
    assert seen == sorted(seen)


def test_every_setting_passes_the_checks():
    for preset in ("quick", "balanced", "best"):
        for width in (NARROW - 1, NARROW):
            for decoder in (True, False):
                resolve(TrainConfig.of(**preset_settings(preset, width, 300, decoder)))


def test_a_better_preset_trains_as_much_or_more():
    for width in (256, 768):
        quick, balanced, best = (preset_settings(p, width, 400) for p in ("quick", "balanced", "best"))
        assert quick["epochs"] < balanced["epochs"] < best["epochs"]
        assert best["train"] in ("blocks", "last_2")


def test_the_book_has_as_many_passes():
    assert preset_settings("balanced", 768, 1045)["epochs"] == pytest.approx(5, abs=1)


def test_what_the_user_says_wins(caplog):
    caplog.set_level("INFO", "gptcls")
    config = settle(resolve(TrainConfig.of(epochs=7, lr=3e-4, train="head")), 256, True, 1000)
    assert (config.fit.epochs, config.fit.lr, config.model.train) == (7, 3e-4, "head")
    said = caplog.messages[-1]
    assert "--preset balanced" in said
    assert "--batch-size" in said
    assert "--epochs" not in said
    assert settle(config, 768, False, 10) == config, "nothing is open any more"


def test_a_wide_network_gets_the_book_s_rate():
    config = settle(resolve(TrainConfig.of(model="gpt2-small")), 768, True, 1045)
    assert (config.model.train, config.fit.lr, config.fit.batch_size) == ("last_block", 5e-5, 8)


def test_lora_and_random_weights_keep_their_rates():
    assert settle(resolve(TrainConfig.of(train="lora")), 768, True, 100).fit.lr == 8e-4
    assert settle(resolve(TrainConfig.of(init="random")), 256, True, 100).model.train == "all"


def test_the_recipe_of_the_book_leaves_nothing_open(caplog):
    caplog.set_level("INFO", "gptcls")
    config = resolve(TrainConfig.of(recipe="book"))
    assert settle(config, 256, True, 10) == config
    assert not caplog.messages
    with pytest.raises(InputError, match="leave out --preset best"):
        resolve(TrainConfig.of(recipe="book", preset="best"))


def test_an_encoder_is_read_where_it_learnt_to_speak():
    assert preset_settings("balanced", 256, 400, decoder=False)["pooling"] == "auto"


def test_a_run_says_and_keeps_what_was_settled(tmp_path):
    run = train(data="sms-sample", preset="quick", out=tmp_path / "run", device="cpu")
    kept = json.loads((tmp_path / "run" / "config.json").read_text())["options"]
    expected = preset_settings("quick", 256, len(run.split.train))
    assert {name: kept[name] for name in expected} == expected
    assert run.config.fit.epochs == expected["epochs"]
    assert math.isclose(run.history[-1]["epoch"], expected["epochs"])


def test_in_memory_too():
    run = fit(pd.DataFrame(ROWS, columns=["text", "label"]), preset="quick", max_length=16, device="cpu")
    assert run.config.fit.epochs == preset_settings("quick", 256, len(run.split.train))["epochs"]
