"""Measurements made up by hand, with round numbers."""

from autopar.benchmarking.columns import select_columns
from autopar.benchmarking.ranks import Measured
from autopar.benchmarking.summary import summarise

COLUMNS = select_columns("plain,ddp,ddp-static,autopar,autopar-gloo,plain-alone,data-parallel")
MEASURED = Measured(
    steps={
        "plain": [[0.001, 0.001], [0.002, 0.002]],
        "ddp": [[0.004, 0.004], [0.008, 0.008]],
        "ddp-static": [[0.002, 0.002], [0.005, 0.005]],
        "autopar": [[0.001, 0.003], [0.004, 0.004]],
        "plain-alone": [[0.010], [0.010]],
        "data-parallel": [[0.005], [0.005]],
    },
    peak={"plain": 100 << 20, "autopar": None},
    skipped={"autopar-gloo": "RuntimeError: no gloo"},
)
SUMMARY = summarise("deep", MEASURED, COLUMNS)
