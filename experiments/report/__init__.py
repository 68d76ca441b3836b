"""What a run left behind, to be looked at: a page for a browser, TensorBoard scalars."""

from experiments.report.page import write_report

__all__ = ["write_report"]
