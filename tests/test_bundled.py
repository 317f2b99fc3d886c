"""The models inside the package: the spam classifier that answers when no model is named."""

import json
import subprocess
import sys
from importlib.resources import files

import numpy as np
import pytest

from gptcls import classify_review, load_classifier
from gptcls.classify.predict import DEFAULT_CLASSIFIER
from gptcls.classify.store import find_classifier
from gptcls.evaluation.judge import judge_of

SPAM = [
    "Congratulations! You have won a $1000 gift card. Reply YES to claim your prize now",
    "Good news!! Your number came up in our draw and 2000 pounds are yours. Ring 09098790123 to collect",
    "You have been selected for a free holiday to Spain. Call 0808 157 0199 now to book your place",
    "FREE concert tickets every week! Text GIG to 80455 and play. 150p per msg, 16+",
    "Your parcel is held at our depot. Pay the 1.99 fee now at www.parcel-fee-example.com",
    "Your package could not be delivered. Confirm your address and pay the customs charge: example.com/2xk9",
    "URGENT! Your bank account has been suspended. Verify your details at www.secure-bank-example.com",
    "Dear customer, your card is blocked. Call 08081570456 immediately to unlock your account",
    "Get a personal loan of up to 5000 today! No credit check. Reply LOAN or call 0808 157 0267",
    "Hot singles in your area want to chat tonight! Text CHAT to 69455, 1.50 per message, 18+",
    "A new ringtone is waiting for you! Txt TONE to 80455 for this week's chart hits, only 3 pounds a week",
    "Someone fancies you! Find out who: call 09098790345, calls cost 150ppm",
    "Final notice: claim compensation for the accident you had. Reply CLAIM to get 3750 pounds",
    "Time for a new camera phone? It is FREE with our best tariff. Call 08081570381 by Sunday. T&Cs apply",
    "LAST CHANCE: an award worth 800 pounds is unclaimed in your name. Call 09098790567 from a landline",
    "Cut your phone bill by half! Twice the minutes for the same money. Txt SWITCH to 80455, stop texts STOP",
    "Win a brand new iPhone! Just answer this question: capital of France? Text PARIS or ROME to 80455",
]
HAM = [
    "See you at the station at six, I'll bring the tickets",
    "Running ten minutes late, sorry! Order me a coffee",
    "Can you pick up some milk and bread on your way home?",
    "Happy birthday!! Hope you have a lovely day, see you tonight",
    "Your verification code is 482913. Do not share it with anyone.",
    "482913 is your login code. It expires in ten minutes.",
    "Reminder: dentist appointment tomorrow at 10:30 with Dr Lee",
    "Hi, this is a reminder of your appointment at the clinic on Monday at 9am",
    "lol that was so funny, tell her i said hi",
    "Are we still on for lunch on Friday?",
    "I'm in a meeting, will call you back later",
    "Thanks for dinner last night, the food was great",
    "Where are you? We are waiting outside the cinema",
    "ok no problem, take your time",
    "Don't forget mum's present, the shop closes at 5",
    "I love you too, sleep well",
    "What time does the train get in? I can fetch you from the station",
    "The exam went fine I think, question three was hard though",
    "Can u send me the notes from todays lecture pls",
    "I left my keys on your kitchen table, can you check?",
    "Did you see the match yesterday? What a goal",
    "Sorry, I fell asleep on the sofa. Talk tomorrow?",
    "We need to talk about the rent, can you call me after work",
]
# What it gets wrong. The messages were written before its answers were seen, and none was changed after.
MISTAKES = {
    "Your verification code is 482913. Do not share it with anyone.",
    "482913 is your login code. It expires in ten minutes.",
}


@pytest.fixture(scope="module")
def answers() -> dict[str, str]:
    texts = SPAM + HAM
    return dict(zip(texts, classify_review(texts), strict=True))


@pytest.mark.parametrize("text", SPAM)
def test_common_sense_spam(answers, text):
    assert (answers[text] == "spam") == (text not in MISTAKES)


@pytest.mark.parametrize("text", HAM)
def test_common_sense_ham(answers, text):
    assert (answers[text] == "not spam") == (text not in MISTAKES)


def test_it_is_right_on_at_least_thirty_messages_of_common_sense():
    assert len(SPAM) + len(HAM) - len(MISTAKES) >= 30


def test_a_narrow_format_changes_one_answer_of_260_at_most():
    """The last block in it too, of which a maximum is read."""
    sample = files("gptcls") / "assets" / "sms_sample.tsv"
    texts = [line.split("\t")[1] for line in sample.read_text(encoding="utf-8").splitlines()[1::2]]
    narrow, exact = (load_classifier(device="cpu", precision=precision) for precision in ("auto", "fp32"))
    probabilities = [classifier.predict_proba(texts) for classifier in (narrow, exact)]
    answers = [classifier.answers(p) for classifier, p in zip((narrow, exact), probabilities, strict=True)]
    assert len(texts) == 260
    assert sum(one != two for one, two in zip(*answers, strict=True)) <= 1
    assert np.abs(probabilities[0] - probabilities[1]).max() < 0.05


def test_one_text_and_many_agree(answers):
    """A batch pads, a single text does not."""
    for text in (SPAM[0], HAM[0]):
        assert classify_review(text) == answers[text]


@pytest.mark.slow
def test_command_without_a_model():
    done = subprocess.run(
        [sys.executable, "-m", "gptcls.classify", SPAM[1]], capture_output=True, text=True, check=True
    )
    label, probability = done.stdout.split()
    assert (label, done.stderr) == ("spam", "")
    assert float(probability) > 0.5


@pytest.mark.slow
def test_the_card_states_the_scores_that_the_classifier_has(sms_file):
    """Trained and judged on UCI's collection: the test rows of its own split give the stored scores again."""
    from gptcls.data.sources import load_data
    from gptcls.data.split import drop_duplicates, make_split

    classifier = load_classifier(precision="fp32", device="cpu")
    folder = find_classifier(DEFAULT_CLASSIFIER)
    spec = json.loads((folder / "classifier.json").read_text())
    rows = drop_duplicates(load_data(sms_file))
    test = make_split(rows, seed=spec["training"]["seed"]).test
    task = classifier.saved.task
    targets = task.targets(test["label"].tolist()).numpy()
    scores = judge_of(task).scores(targets, classifier.predict_proba(test["text"].tolist()))
    assert scores["f1"] == pytest.approx(spec["scores"]["test"]["f1"], abs=0.005)
    assert scores["n"] == spec["scores"]["test"]["n"]
    card = (folder / "README.md").read_text()
    assert f"{scores['f1']:.3f}" in card
    assert f"{scores['accuracy']:.2%}".replace("%", " %") in card


def test_a_folder_called_like_a_preset_is_not_the_preset(tmp_path, monkeypatch):
    from helpers.tiny import write_csv

    from gptcls.train.config import TrainConfig
    from gptcls.train.run import train

    monkeypatch.chdir(tmp_path)
    (tmp_path / "gpt2-nano").mkdir()
    data = str(write_csv(tmp_path / "rows.csv"))
    run = train(TrainConfig.of(data=data, epochs=1, max_length=8, train="head", device="cpu"))
    assert run.classifier.base["name"] == "gpt2-nano"
    assert load_classifier(run.folder, "cpu").predict("win a prize") in ("ham", "spam")
