"""Every method of the accuracy bench, in the order of its tables."""

from __future__ import annotations

from . import black_vip, coop, gda, heads, proker, prompts, released, zip_spsa, zo
from .method import Method
from .prompts import EMBEDDING

# SharpZO's own values are std 1 and an eta of 1e-3, with sigma0 by data set.
_PAPER = (
    {"std": 1.0, "sigma0": 0.4, "eta": 1e-3},
    {"std": 1.0, "sigma0": 0.4, "eta": 1e-1},
    {"std": 1.0, "sigma0": 0.1, "eta": 1e-3},
    {"std": EMBEDDING, "sigma0": 0.4, "eta": 1e-2},
    {"std": EMBEDDING, "sigma0": 0.4, "eta": 1e-1},
    {"std": EMBEDDING, "sigma0": 0.4, "eta": 3e-1},
    {"std": EMBEDDING, "sigma0": 0.4, "eta": 1.0},
    {"std": EMBEDDING, "sigma0": 0.1, "eta": 3e-1},
    {"std": EMBEDDING, "sigma0": 0.1, "eta": 1.0},
)
# The released code adds up gradients that it never clears, so shorter steps are offered.
_RELEASED = (
    {"std": 1.0, "sigma0": 0.4, "eta": 1e-3},
    {"std": 1.0, "sigma0": 0.4, "eta": 1e-1},
    {"std": 1.0, "sigma0": 1.0, "eta": 1e-3},
    {"std": 1.0, "sigma0": 0.1, "eta": 1e-3},
    {"std": EMBEDDING, "sigma0": 0.4, "eta": 1e-3},
    {"std": EMBEDDING, "sigma0": 0.4, "eta": 1e-2},
    {"std": EMBEDDING, "sigma0": 0.4, "eta": 1e-1},
    {"std": EMBEDDING, "sigma0": 0.1, "eta": 1e-3},
    {"std": EMBEDDING, "sigma0": 0.1, "eta": 1e-2},
)

_ALL = (
    Method("zero_shot", "zero-shot", "prompt", prompts.zero_shot),
    Method(
        "cma",
        "CMA-ES alone (BBT)",
        "prompt",
        prompts.cma,
        # Only the product of the two matters: CMA-ES does not know A's scale.
        grid=(
            {"std": 1.0, "sigma0": 0.4},
            {"std": 1.0, "sigma0": 1.0},
            {"std": 1.0, "sigma0": 0.1},
            {"std": 1.0, "sigma0": 0.02},
            {"std": EMBEDDING, "sigma0": 0.4},
            {"std": EMBEDDING, "sigma0": 0.1},
            {"std": 1.0, "sigma0": 1.0, "population": 22},
            {"std": 1.0, "sigma0": 0.1, "population": 22},
            {"std": EMBEDDING, "sigma0": 0.4, "population": 22},
        ),
    ),
    Method(
        "mezo",
        "ZO-SGD (MeZO)",
        "prompt",
        zo.mezo,
        grid=(
            {"std": 1.0, "eta": 1e-2, "mu": 1e-1},
            {"std": 1.0, "eta": 1e-3, "mu": 1e-3},
            {"std": 1.0, "eta": 3e-3, "mu": 1e-2},
            {"std": 1.0, "eta": 3e-4, "mu": 1e-3},
            {"std": 1.0, "eta": 1e-2, "mu": 1e-2},
            {"std": EMBEDDING, "eta": 1e-1, "mu": 1e-2},
            {"std": EMBEDDING, "eta": 3e-1, "mu": 1e-1},
            {"std": EMBEDDING, "eta": 1.0, "mu": 1e-2},
            {"std": EMBEDDING, "eta": 3e-2, "mu": 1e-3},
        ),
    ),
    Method(
        "sparse_mezo",
        "Sparse-MeZO",
        "prompt",
        zo.sparse_mezo,
        grid=(
            {"std": 1.0, "eta": 1e-2, "mu": 1e-1, "sparsity": 0.75},
            {"std": 1.0, "eta": 1e-3, "mu": 1e-3, "sparsity": 0.75},
            {"std": 1.0, "eta": 1e-3, "mu": 1e-3, "sparsity": 0.5},
            {"std": 1.0, "eta": 3e-3, "mu": 1e-2, "sparsity": 0.5},
            {"std": 1.0, "eta": 3e-3, "mu": 1e-3, "sparsity": 0.75},
            {"std": 1.0, "eta": 3e-4, "mu": 1e-3, "sparsity": 0.5},
            {"std": EMBEDDING, "eta": 1e-1, "mu": 1e-2, "sparsity": 0.5},
            {"std": EMBEDDING, "eta": 3e-1, "mu": 1e-1, "sparsity": 0.5},
            {"std": EMBEDDING, "eta": 3e-1, "mu": 1e-1, "sparsity": 0.75},
        ),
    ),
    Method(
        "zip",
        "ZIP",
        "prompt",
        zip_spsa.zip_spsa,
        grid=(
            {"a": 1e-2, "c": 1e-2},
            {"a": 3e-2, "c": 1e-2},
            {"a": 1e-1, "c": 1e-2},
            {"a": 3e-1, "c": 1e-2},
            {"a": 3e-2, "c": 1e-3},
            {"a": 1e-1, "c": 3e-2},
            {"a": 3e-2, "c": 1e-2, "words": True},
            {"a": 1e-1, "c": 1e-2, "words": True},
            {"a": 3e-1, "c": 1e-2, "words": True},
        ),
    ),
    Method(
        "released",
        "SharpZO as released",
        "prompt",
        released.released,
        grid=_RELEASED,
        trial={"change_point": 1},
    ),
    Method(
        "paper",
        "SharpZO, preset paper",
        "prompt",
        prompts.paper,
        grid=_PAPER,
        trial={"change_point": 1, "prune_ratio": 0.0},  # a mask's sweep would take the rest
    ),
    Method("edge", "SharpZO, preset edge", "prompt", prompts.edge, grid=(prompts.EDGE_SETTINGS,)),
    Method(
        "black_vip",
        "BlackVIP, a variant",
        "picture",
        black_vip.black_vip,
        # Few points: its queries are slow.
        grid=tuple(
            {"strength": strength, "c": 0.005, "a": a, "beta": 0.9, "gamma": 0.2}
            for strength in (0.4, 1.0)
            for a in (0.01, 0.03)
        ),
    ),
    Method(
        "coop_w",
        "CoOp in w (back-propagation)",
        "backprop",
        coop.coop_w,
        grid=tuple(
            {"std": std, "rate": rate, "steps": coop.STEPS}
            for std, rates in ((EMBEDDING, (0.05, 0.02, 0.1, 0.2)), (1.0, (0.05, 0.002, 0.01, 0.2)))
            for rate in rates
        ),
        needs_torch=True,
        load=coop.load,
    ),
    Method(
        "coop_context",
        "CoOp in the context (back-propagation)",
        "backprop",
        coop.coop_context,
        grid=tuple({"rate": rate, "steps": coop.STEPS} for rate in (0.005, 0.002, 0.01, 0.02, 0.001)),
        needs_torch=True,
        load=coop.load,
    ),
    Method("gda", "GDA head (published shrinkage)", "head", gda.gda, grid=(gda.SETTINGS,)),
    Method("tip_adapter", "Tip-Adapter head", "head", heads.tip_adapter, grid=(heads.FITTED_TO,)),
    Method("proker", "ProKeR head", "head", proker.proker, grid=(proker.SETTINGS,)),
    Method("ss_text", "SS-Text head", "head", heads.ss_text, grid=(heads.FITTED_TO,)),
    Method(
        "linear_probe",
        "linear probe",
        "head",
        heads.linear_probe,
        grid=(heads.FITTED_TO,),
        load=heads.load_sklearn,
    ),
)

METHODS: dict[str, Method] = {method.name: method for method in _ALL}
