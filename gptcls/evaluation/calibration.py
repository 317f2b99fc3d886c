"""Is a classifier as sure as it should be? How far its probabilities are from the shares that come true, and
the mildest cure: temperature scaling (Guo et al. 2017), of several labels one for each (Platt 1999).

What is judged are *claims*: probabilities and whether each came true. Of two classes the second's, of more
the likeliest one's, of lists of labels every label's of every text.

>>> claims = claims_of(np.array([0, 1, 1, 1]), np.array([[0.9, 0.1], [0.3, 0.7], [0.3, 0.7], [0.3, 0.7]]))
>>> round(expected_calibration_error(*claims), 3)  # 1/4 of them is 0.1 too high, 3/4 are 0.3 too low
0.25
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gptcls.common.log import log

BINS = 10  # of equal width
DRAWS = 1000
FEWEST_OF_LABEL = 10  # validation rows that have a label, and that lack it, for a line of its own


class Claims(NamedTuple):
    """Probabilities (N, M) that M things are so of each of N texts, and whether they are (N, M)."""

    probabilities: np.ndarray
    true: np.ndarray


def claims_of(targets: np.ndarray, probabilities: np.ndarray) -> Claims:
    """Of targets (N,) or (N, K) and probabilities (N, K)."""
    probabilities = np.asarray(probabilities, dtype=float)
    if targets.ndim == 2:
        return Claims(probabilities, targets.astype(bool))
    if probabilities.shape[1] == 2:
        return Claims(probabilities[:, 1:], targets[:, None] == 1)
    likeliest = probabilities.argmax(axis=1)[:, None]
    return Claims(np.take_along_axis(probabilities, likeliest, axis=1), targets[:, None] == likeliest)


def calibration_scores(targets: np.ndarray, probabilities: np.ndarray) -> dict:
    """How well calibrated probabilities (N, K) are on targets (N,) or (N, K), as JSON values:

    - ``ece``, the expected calibration error (Naeini et al. 2015) over ten bins of equal width, with the
      interval ``ece_low`` to ``ece_high``. Chance alone makes it larger than 0, with few texts by much. So
      the interval is the basic bootstrap's (2 ece - q), which takes that off, from bins whose sums are drawn
      as normal; its low end is 0 where an error of 0 would show as much one time in twenty.
    - ``log_loss``, in nats, of several labels the mean over them.
    - ``bins``: of each that is not empty how many claims it has, their mean ``probability``, and the
      ``share`` that came true.
    """
    claims = claims_of(targets, probabilities)
    if not len(targets):
        return dict.fromkeys(("ece", "ece_low", "ece_high", "log_loss")) | {"bins": []}
    count, total, true = _binned(claims)
    bins = [
        {"n": int(n), "probability": float(p / n), "share": float(hits / n)}
        for n, p, hits in zip(count, total, true, strict=True)
        if n
    ]
    ece = expected_calibration_error(*claims)
    low, high = _interval(claims, ece)
    loss = float(_losses(np.asarray(targets), np.asarray(probabilities, dtype=float)).mean())
    return {"ece": ece, "ece_low": low, "ece_high": high, "log_loss": loss, "bins": bins}


def expected_calibration_error(probabilities: np.ndarray, true: np.ndarray) -> float:
    """The gap between mean probability and share that came true, bin by bin, in the mean over the claims."""
    _, total, hits = _binned(Claims(probabilities, true))
    return float(np.abs(hits - total).sum() / probabilities.size)


def _bin_of(probabilities: np.ndarray) -> np.ndarray:
    return np.minimum((probabilities * BINS).astype(int), BINS - 1)


def _binned(claims: Claims) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Claims, sum of probabilities and claims that came true of each bin."""
    bins = _bin_of(claims.probabilities).ravel()
    weights = (None, claims.probabilities.ravel(), claims.true.ravel().astype(float))
    count, total, true = (np.bincount(bins, weight, BINS) for weight in weights)
    return count, total, true


def _interval(claims: Claims, ece: float) -> tuple[float, float]:
    probabilities, true = claims
    n, bins = len(probabilities), _bin_of(probabilities)
    gaps, chance = np.zeros((n, BINS)), np.zeros(BINS)
    rows = np.broadcast_to(np.arange(n)[:, None], bins.shape)
    np.add.at(gaps, (rows, bins), true - probabilities)  # claims of one text are not independent
    np.add.at(chance, bins, probabilities * (1 - probabilities))
    sums, spread = gaps.sum(axis=0), n * np.atleast_2d(np.cov(gaps, rowvar=False, bias=True))
    # A bin where all came true has no spread of its own, yet another sample could differ.
    spread[np.diag_indices(BINS)] = np.maximum(spread.diagonal(), chance)
    random = np.random.RandomState(0)  # its stream is frozen for good (NEP 19)
    noise = random.multivariate_normal(np.zeros(BINS), spread, size=DRAWS, check_valid="ignore")
    drawn, by_chance = (np.abs(x).sum(axis=1) / probabilities.size for x in (sums + noise, noise))
    high, low = 2 * ece - np.quantile(drawn, [0.025, 0.975])
    nothing = ece <= np.quantile(by_chance, 0.95)
    return 0.0 if nothing else float(np.clip(low, 0, ece)), float(np.clip(high, ece, 1))


# --- the cure ---


@dataclass(frozen=True)
class Calibration:
    """``logits / temperatures + shifts``: one temperature for all classes of a text, or one of each label.

    A temperature above 1 makes less sure. It changes no order: the likeliest class stays the likeliest, and a
    label's threshold moves along (:meth:`moved`).
    """

    temperatures: tuple[float, ...]
    shifts: tuple[float, ...] = (0.0,)

    def outputs(self, probabilities: np.ndarray, several: bool) -> np.ndarray:
        """Calibrated probabilities (N, K) of such ones; ``several``: each label on its own."""
        p = np.clip(np.asarray(probabilities, dtype=float), 1e-38, 1)
        if several:
            return _sigmoid(_logit(p) / np.array(self.temperatures) + np.array(self.shifts))
        calibrated = _softmax(np.log(p) / self.temperatures[0]).astype(np.float32)
        return _same_likeliest(calibrated, p)

    def moved(self, thresholds: Sequence[float]) -> tuple[float, ...]:
        """Where thresholds of labels lie after calibration: each text keeps its labels."""
        return tuple(self.outputs(np.array([thresholds]), several=True)[0].tolist())

    def to_json(self) -> dict:
        return {"temperatures": list(self.temperatures), "shifts": list(self.shifts)}

    @classmethod
    def from_json(cls, spec: dict) -> "Calibration":
        return cls(tuple(spec["temperatures"]), tuple(spec["shifts"]))


def fit_calibration(targets: np.ndarray, probabilities: np.ndarray) -> Calibration | None:
    """The calibration for probabilities (N, K) of validation rows with targets (N,) or (N, K), and a log line
    about it; None, with one, where none is needed.

    Classes have one temperature, 1 at least. Where few rows are wrong a lucky draw of them asks for more
    certainty, and pays for that without bound; less of it than needed costs little (benchmarks/LOG.md). A
    label has a line of its own where validation rows are enough to tell: ten that have it and ten that lack
    it, and a likelihood ratio against the common temperature that chance would bring to any of the K labels
    one time in twenty.
    """
    several, n = targets.ndim == 2, len(targets)
    p = np.clip(np.asarray(probabilities, dtype=float), 1e-38, 1)
    wrong = int(((p >= 0.5) != targets).sum()) if several else int((p.argmax(axis=1) != targets).sum())
    rows = f"{n:,} validation rows, {wrong:,} {'decisions' if several else 'answers'} wrong"
    if not several:
        temperature = best_temperature(lambda t: _losses(targets, _softmax(np.log(p) / t)).mean())
        if temperature == 1.0:
            log.info(f"probabilities as they are: not too sure on {rows}")
            return None
        log.info(f"probabilities at temperature {temperature:.2f}, fitted on {rows}")
        return Calibration((temperature,))
    z = _logit(p)
    shared = best_temperature(lambda t: _losses(targets, _sigmoid(z / t)).mean())
    have, chance = targets.sum(axis=0), 0.05 / targets.shape[1]
    pairs = [
        _line(true, logits, shared, chance)
        if FEWEST_OF_LABEL <= count <= n - FEWEST_OF_LABEL
        else (shared, 0.0)
        for true, logits, count in zip(targets.T, z.T, have, strict=True)
    ]
    temperatures, shifts = zip(*pairs, strict=True)
    own = sum(pair != (shared, 0.0) for pair in pairs)
    if not own and shared == 1.0:
        log.info(f"probabilities as they are: not too sure on {rows}")
        return None
    how = f"{own} of {len(pairs)} labels by a line of their own"
    log.info(f"probabilities calibrated, {how}, fitted on {rows}")
    return Calibration(temperatures, shifts)


def best_temperature(loss: Callable[[float], float]) -> float:
    """The temperature with the smallest loss, 1 at least and 20 at most."""
    from scipy.optimize import minimize_scalar

    found = float(np.exp(minimize_scalar(lambda x: loss(np.exp(x)), bounds=(0, 3), method="bounded").x))
    return found if loss(found) < loss(1.0) else 1.0


def _line(true: np.ndarray, logits: np.ndarray, shared: float, chance: float) -> tuple[float, float]:
    """Temperature and shift of one label with the smallest loss (Platt 1999), a weak prior at (1, 0); the
    ``shared`` temperature alone where that is worse by no more than what happens with this chance."""
    from scipy.optimize import minimize

    def loss(x: np.ndarray) -> float:
        return _losses(true, _sigmoid(logits / np.exp(x[0]) + x[1])).sum() + 0.5 * (x**2).sum()

    found = minimize(loss, [0.0, 0.0], method="L-BFGS-B", bounds=[(-3, 3), (-20, 20)])
    # Twice this difference has a chi-squared distribution of two degrees of freedom (Wilks 1938).
    if _losses(true, _sigmoid(logits / shared)).sum() - found.fun < -np.log(chance):
        return shared, 0.0
    return float(np.exp(found.x[0])), float(found.x[1])


def _losses(targets: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """In nats, of each text (N,) or of each label (…, K)."""
    if targets.shape == probabilities.shape:
        right = np.where(targets.astype(bool), probabilities, 1 - probabilities)
    else:
        right = np.take_along_axis(probabilities, targets[:, None], axis=1)[:, 0]
    return -np.log(np.clip(right, 1e-38, 1))


def _same_likeliest(rounded: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Where rounding made two classes equal, the likelier one is again the first of the largest."""
    was = exact.argmax(axis=1)
    for row in np.flatnonzero(rounded.argmax(axis=1) != was):
        rounded[row, was[row]] = np.nextafter(rounded[row].max(), np.float32(2))
    return rounded


def _softmax(logits: np.ndarray) -> np.ndarray:
    from scipy.special import softmax

    return softmax(logits, axis=1)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    from scipy.special import expit

    return expit(logits)


def _logit(p: np.ndarray) -> np.ndarray:
    return np.log(p) - np.log(np.clip(1 - p, 1e-16, 1))
