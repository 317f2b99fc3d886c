"""benchmarks.long_texts runs, reads the reviews as they are, and adds up right; no accuracy is tested."""

import json
import zipfile

import pytest
from helpers import SHARED
from scipy.stats import binomtest

from benchmarks.long_texts import Options, figures, reviews, run
from gptcls.core.errors import InputError


@pytest.fixture
def archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "movie_reviews.zip", "w") as file:
        file.writestr("movie_reviews/README", "not a review")
        for kind, word in (("pos", "fine"), ("neg", "poor")):
            for i in range(15):
                file.writestr(f"movie_reviews/{kind}/cv{i:03}.txt", f"a {word} film {i} " * 20)
    return tmp_path


@pytest.mark.slow
def test_it_runs(base, archive, tmp_path, capsys):
    options = {"model": str(base), "data": archive, "seeds": (0, 1), "max_length": 16, "epochs": 1}
    lines = run(Options(**options, ways=("head", "windows"), rows=24, json=tmp_path / "out.json"))
    assert [line["what"] for line in lines] == [
        "--long head",
        "--long windows",
        "TF-IDF of words and characters",
    ]
    out = capsys.readouterr().out
    assert "weights base, sha256" in out
    assert "16 tokens at once, 2 seeds" in out
    assert out.count("| --long") == 2
    assert all(line["n"] == 2 * 4 for line in lines), "a fifth of 24, by class, for each seed"
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["rows"] == lines
    assert str(tmp_path) not in (tmp_path / "out.json").read_text()
    for options, said in [
        ({"rows": 6}, "--rows 6 is too few"),
        ({"seeds": ()}, "--seeds and --ways need"),
        ({"data": tmp_path / "none"}, "no such folder"),
    ]:
        with pytest.raises(InputError, match=said):
            run(Options(**{"data": archive, **options}))


def test_figures_against_scipy():
    line = figures("x", [{"accuracy": 0.8, "n": 50}, {"accuracy": 0.9, "n": 50}], [1.0, 3.0])
    assert (line["accuracy"], line["n"], line["seconds"]) == (pytest.approx(0.85), 100, 2.0)
    assert line["sd"] == pytest.approx(0.1 / 2**0.5)
    interval = binomtest(85, 100).proportion_ci(method="wilson")
    assert (line["low"], line["high"]) == pytest.approx((interval.low, interval.high))


def test_the_real_reviews():
    path = SHARED / "movie_reviews"
    if not path.exists():
        pytest.skip(f"the film reviews are not at {path}")
    frame = reviews(path, None)
    assert frame.label.value_counts().to_dict() == {"neg": 1000, "pos": 1000}
    assert 700 < frame.text.str.split().map(len).mean() < 800
    assert reviews(path, 20).label.value_counts().to_dict() == {"neg": 10, "pos": 10}
