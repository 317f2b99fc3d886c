"""The simulated data path does what queueing theory says."""

import pytest

from benchmarks.scale import Options, page, simulate


def flow(seconds, workers=(1, 1, 1), blocks=200, queue=4, **how):
    stages = ("readers", "actors", "writers")
    given = (dict(zip(stages, values, strict=True)) for values in (workers, seconds))
    return simulate(blocks, *given, queue, **how)


@pytest.mark.parametrize("seconds", [(1, 2, 3), (3, 2, 1), (1, 4, 2), (2, 2, 2)])
@pytest.mark.parametrize("queue", [1, 4])
def test_workers_in_a_row_take_the_time_of_the_slowest(seconds, queue):
    """Without variation the first block passes all stages, and the slowest one ends each other."""
    found = flow(seconds, queue=queue)
    assert found.seconds == pytest.approx(sum(seconds) + 199 * max(seconds))
    assert found.busy["readers"] == pytest.approx(200 * seconds[0] / found.seconds)
    assert found.waiting <= 2 * queue


def test_actors_before_a_slow_writer_are_stuck_for_the_rest_of_their_time():
    found = flow((0.1, 1, 4), blocks=2000)
    assert found.narrowest == "writers"
    assert found.blocked["actors"] == pytest.approx(1 - 1 / 4, abs=0.01)
    assert found.blocked["writers"] == 0


def test_more_workers_move_the_stall_and_a_queue_bears_variation():
    assert flow((1, 6, 2), (1, 12, 4)).narrowest == "readers"
    assert flow((1, 6, 2), (1, 12, 4)).seconds < flow((1, 6, 2), (1, 3, 1)).seconds
    tight, roomy = (flow((1, 1, 1), blocks=2000, queue=q, spread=0.5, seed=1).seconds for q in (1, 50))
    assert tight > 1.05 * roomy > 2000


def test_the_page_follows_its_assumptions():
    own = {"readers": 1e-5, "writers": 2e-5}
    cheap, dear = (page(Options(rows=1e6, actors=2, core_price=p), own) for p in (0.1, 0.2))
    # 1e6 rows at 5574 / 59 / 2 a second and core.
    assert "| gpt2-small | measured | 47 | 6 | 1 |" in cheap
    assert cheap != dear
    assert "1.88" in cheap, "4 * 6.7e9 * 1e8 / (989e12 * 0.4) seconds"
