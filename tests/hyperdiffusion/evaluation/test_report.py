"""The report holds every metric of every set, in each of its three files."""

import json
import math
import sys

import numpy as np
import pytest
from support import bumpy_ellipsoid

from hyperdiffusion.evaluation.efficientnet_features import INSTALLATION, PACKAGES
from hyperdiffusion.evaluation.evaluate import evaluate_sets
from hyperdiffusion.evaluation.report import EvaluationReport, available_metrics, metrics_table
from hyperdiffusion.evaluation.set_metrics import EvaluationConfig, SetMetrics


@pytest.fixture(scope="module")
def report() -> EvaluationReport:
    random = np.random.default_rng(0)
    test, training, generated = ([bumpy_ellipsoid(random) for _ in range(count)] for count in (4, 6, 5))
    return evaluate_sets(
        {"other generator": generated[:2], "generated": [*generated, None]},
        test=test,
        training=training,
        config=EvaluationConfig(points=100, emd_heads=3, emd_points=32),
    )


def test_the_table_has_a_row_for_each_metric_and_a_column_for_each_set(report):
    header, _, *rows = [line.strip("| ").split(" | ") for line in report.table().splitlines()]
    assert header == ["test", "training", "other generator", "generated"]
    assert [row[0] for row in rows] == [metric.label for metric in available_metrics()]
    assert "| heads | 4 | 4 | 2 | 6 |" in report.table()
    one_nna = report.sets["generated"].chamfer.one_nna
    assert f"{one_nna.mean:.2f} [{one_nna.low:.2f}, {one_nna.high:.2f}] |" in report.table()


def test_metrics_without_a_meaning_are_empty_cells():
    table = metrics_table({"point clouds": SetMetrics(heads=3, diversity_mm=1.25, compactness=2)})
    assert "| diversity (mm) | 1.25 |" in table and "| watertight ↑ |  |" in table and "| copy rate ↓ |  |" in table


def test_the_json_file_holds_estimates_by_their_keys_and_no_infinity(report, tmp_path):
    report.write(tmp_path)
    sets = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    generated = sets["generated"]
    assert set(generated) >= {metric.key for metric in available_metrics()}
    assert generated["coverage_chamfer"] == vars(report.sets["generated"].chamfer.coverage)
    assert sets["test"]["coverage_chamfer"] is None
    # The head without a surface is infinitely far from all training heads.
    assert math.isinf(report.sets["generated"].novelty.distances_mm[-1])
    assert generated["distance_to_training_mm"][-1] is None and generated["nearest_training_mm"]["mean"] is None
    assert generated["validity"][0]["components"] == 1


def test_the_page_contains_its_pictures(report, tmp_path):
    report.write(tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    # Five heads, and the two nearest and two farthest of them.
    assert page.count("data:image/png;base64,") == 9 and "src='http" not in page
    # The test heads, two sets of generated heads.
    assert page.count("<svg") == 3
    assert (tmp_path / "report.md").read_text(encoding="utf-8").startswith(report.table())


def test_a_report_without_training_heads_has_no_pictures_of_them(report, tmp_path):
    evaluate_sets(
        {"generated": [mesh for mesh in report.meshes if mesh is not None]},
        test=list(report.training[:3]),
        training=[],
        config=EvaluationConfig(points=50, emd_heads=0, standardised=False),
    ).write(tmp_path)
    assert "<figure>" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_report_without_the_network_leaves_its_metric_out_and_says_how_to_get_it(report, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, PACKAGES[0], None)
    evaluate_sets(
        {"generated": list(report.training[3:])},
        test=list(report.training[:3]),
        training=[],
        config=EvaluationConfig(points=50, emd_heads=0, standardised=False),
    ).write(tmp_path)
    texts = {path.suffix: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert "Fréchet distance, EfficientNet" not in texts[".md"] + texts[".html"]
    assert INSTALLATION in texts[".md"] and INSTALLATION in texts[".html"]
    assert "frechet_distance" in texts[".json"] and "frechet_distance_efficientnet" not in texts[".json"]
