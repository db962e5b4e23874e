"""The heatmap files of a run, evaluated as anyone's heatmaps are: the report's section."""

from __future__ import annotations

from medgen.anomaly.comparison.methods import RATES, Comparison
from medgen.report.html import Report, fmt


def files_section(report: Report, files: Comparison, ap_on_model_grid: float) -> None:
    """What ``medgen anomaly evaluate heatmaps truth`` says of the run's own files, and how the grids differ.

    Args:
        report: The report.
        files: That evaluation.
        ap_on_model_grid: Voxel AP of the fused map in the tables above.
    """
    row = files.methods[0]
    ap = row.voxel["AP"]
    report.section(
        "The heatmap files",
        "The same scans on their own grids, as the files in `heatmaps/` and `truth/` have them; `medgen anomaly "
        "evaluate heatmaps truth` in the run folder prints these numbers. The tables above compare scores on the model "
        f"grid, where the implants were made: voxel AP {fmt(ap_on_model_grid)} there, {fmt(ap)} here (chance "
        f"{files.prevalence:.4f}). Lesions: found by clusters of the hottest 1 % of each scan, ranked by their peak, "
        "as any program's heatmap can be judged; the section Findings goes by the calibration.",
        layer="appendix",
    )
    report.table(
        ["measure", "value", "chance"],
        [
            *((name, value, _chance(name, files)) for name, value in row.voxel.items()),
            ("AP per scan", row.ap_per_scan, None),
            *(
                (f"scan {what} ({key})", value, files.chance_scan if what == "AP" else 0.5)
                for key, own in row.scan.items()
                for what, value in own.items()
            ),
        ],
    )
    report.table(
        ["false positives per scan", *(f"{rate:g}" for rate in RATES), "mean"],
        [("share of implants found", *row.sensitivity.values(), row.froc)],
        "FROC over all healthy and implanted test scans.",
    )


def _chance(name: str, files: Comparison) -> float | None:
    return {"AP": files.prevalence, "AP with healthy scans": files.prevalence_all, "AUROC": 0.5}.get(name)
