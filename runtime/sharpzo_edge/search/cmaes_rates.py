"""CMA-ES's learning rates and weights: constants that follow from d, S and the kind of covariance.

"eq." is an equation of N. Hansen, "The CMA Evolution Strategy: A Tutorial", arXiv 1604.00772. Where pycma 4.5
differs from it we follow pycma, and the line says so.
"""

import math
from dataclasses import dataclass

import numpy as np

from ..types import Doubles


@dataclass(frozen=True, eq=False)
class Rates:
    """Constants that follow from d, S and the kind of covariance.

    weights:         (S,) of recombination, best first; the positive ones sum to 1
    mu_eff:          variance-effective number of parents
    c_sigma:         learning rate of the step size's path
    d_sigma:         damping of the step size
    c_c, c_1, c_mu:  learning rates of the covariance's path, its rank-one and its rank-mu update
    chi_d:           E ||N(0, I)|| in d dimensions
    lazy_gap:        generations between two eigendecompositions of C
    """

    weights: Doubles
    mu_eff: float
    c_sigma: float
    d_sigma: float
    c_c: float
    c_1: float
    c_mu: float
    chi_d: float
    lazy_gap: float


def rates(d: int, population: int, covariance: str) -> Rates:
    """pycma 4.5's defaults. "diagonal" learns its d variances (d + 2) / 3 times as fast.

    That factor is from Ros & Hansen 2008, "A Simple Modification in CMA-ES Achieving Linear Time and Space
    Complexity". They give it for the whole update of a diagonal C.
    """
    raw = raw_weights(population)
    mu_eff = effective_number(raw[raw > 0])
    speed_up = (d + 2) / 3 if covariance == "diagonal" else 1.0
    c_1 = min(1.0, speed_up * rank_one_rate(d, population, mu_eff))
    c_mu = min(1 - c_1, speed_up * rank_mu_rate(d, mu_eff))
    c_sigma = step_size_rate(d, mu_eff)
    return Rates(
        weights=recombination_weights(raw, d, c_1, c_mu),
        mu_eff=mu_eff,
        c_sigma=c_sigma,
        d_sigma=step_size_damping(d, mu_eff, c_sigma),
        c_c=covariance_path_rate(d, mu_eff),
        c_1=c_1,
        c_mu=c_mu,
        chi_d=expected_length(d),
        lazy_gap=1 / (c_1 + c_mu + 1e-23) / d / 10,  # pycma's lazy_update_gap
    )


def raw_weights(population: int) -> Doubles:
    """ln((S + 1) / 2) - ln i, i = 1..S, best first: (S,) (eq. 49)."""
    return np.array([math.log((population + 1) / 2) - math.log(i + 1) for i in range(population)])


def effective_number(weights: Doubles) -> float:
    """mu_eff = (sum |w|)^2 / sum w^2."""
    return float(np.sum(weights) ** 2 / np.sum(weights**2))


def recombination_weights(raw: Doubles, d: int, c_1: float, c_mu: float) -> Doubles:
    """Weights (S,): the positive sum to 1, the negative to minus the least of 3 bounds (eq. 50 to 53)."""
    positive, negative = np.maximum(raw, 0), np.minimum(raw, 0)
    mu_eff, mu_eff_minus = effective_number(positive), effective_number(negative)
    no_decay = 1 + c_1 / c_mu  # eq. 50
    by_mu_eff = 1 + 2 * mu_eff_minus / (mu_eff + 2)  # eq. 51
    definite = (1 - c_1 - c_mu) / (d * c_mu)  # eq. 52
    bound = min(no_decay, by_mu_eff, definite)
    weights: Doubles = positive / positive.sum() - negative / negative.sum() * bound
    return weights


def step_size_rate(d: int, mu_eff: float) -> float:
    """c_sigma, as pycma has it: its 3 is a 5 in the tutorial (eq. 55)."""
    return min(0.5, (mu_eff + 2) / (d + mu_eff + 3))


def step_size_damping(d: int, mu_eff: float, c_sigma: float) -> float:
    """d_sigma, as pycma 4.5 has it. Its factor before the root is up to 3; the tutorial's is 1 (eq. 55).

    The two are the same while 9 (mu_eff - 1) <= d + 1, as at d = 512 and S = 40.
    """
    factor = max(1.0, 3 * (1 - float(0.5 ** (d / 9))))
    return 1 + 2 * max(0.0, factor * math.sqrt((mu_eff - 1) / (d + 1)) - 1) + c_sigma


def covariance_path_rate(d: int, mu_eff: float) -> float:
    """c_c (eq. 56)."""
    return (4 + mu_eff / d) / (d + 4 + 2 * mu_eff / d)


def rank_one_rate(d: int, population: int, mu_eff: float) -> float:
    """c_1 (eq. 57); for populations below 6 it is smaller, as in pycma."""
    return min(1.0, population / 6) * 2 / ((d + 1.3) ** 2 + mu_eff)


def rank_mu_rate(d: int, mu_eff: float) -> float:
    """c_mu before its bound 1 - c_1 (eq. 58, with the 1/4 that pycma and the tutorial have)."""
    return 2 * (0.25 + mu_eff + 1 / mu_eff - 2) / ((d + 2) ** 2 + mu_eff)


def expected_length(d: int) -> float:
    """chi_d = sqrt(2) Gamma((d + 1) / 2) / Gamma(d / 2)."""
    return math.sqrt(2) * math.exp(math.lgamma((d + 1) / 2) - math.lgamma(d / 2))
