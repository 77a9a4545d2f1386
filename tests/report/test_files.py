import dataclasses
import json
import math
import re
from pathlib import Path

import pytest

from headfirst import types
from headfirst.errors import DataError, InputError
from headfirst.report import read_report, write_report

SCHEMA = Path(__file__).parents[2] / "docs" / "report-schema.md"


def test_round_trip(report, tmp_path):
    path = write_report(report, tmp_path / "out" / "run")
    assert path == tmp_path / "out" / "run" / "report.html"
    assert read_report(path.parent) == report
    assert read_report(path.parent / "report.json") == report
    assert sorted(p.name for p in path.parent.iterdir()) == ["report.html", "report.json", "report.md"]


def test_the_same_report_gives_the_same_bytes(report, tmp_path):
    first, second = (write_report(report, tmp_path / name).parent for name in "ab")
    for name in ("report.html", "report.json", "report.md"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_json_has_no_nan_and_no_infinity(report, tmp_path):
    row = dataclasses.replace(report.rows[0], value=math.nan, low=-math.inf, high=math.inf)
    small = types.Report(rows=(row,), recipe={"rate": math.nan, "grid": (0.1, math.inf)})
    write_report(small, tmp_path)
    document = json.loads(
        (tmp_path / "report.json").read_text(), parse_constant=lambda word: pytest.fail(f"JSON holds {word}")
    )
    assert (document["rows"][0]["value"], document["rows"][0]["high"]) == (None, None)
    assert document["recipe"] == {"rate": None, "grid": [0.1, None]}
    assert math.isnan(read_report(tmp_path).rows[0].low)


def test_an_undecodable_file_name_survives(tmp_path):
    broken = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    data = types.DataSummary(
        name="x", classes=(), counts={}, quarantined=(types.Quarantined(id=broken, reason="not an image"),)
    )
    report = types.Report(rows=(), data=data)
    html = write_report(report, tmp_path).read_text(encoding="utf-8")
    assert "caf\ufffd.jpg" in html
    assert read_report(tmp_path) == report


def test_a_failed_write_leaves_the_old_report(report, tmp_path):
    write_report(report, tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(InputError, match=r"recipe.path must be .* got PosixPath"):
        write_report(dataclasses.replace(report, recipe={"path": Path("/x")}), tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(schema_version=2), r"reads report schema 1, got 2"),
        (lambda d: d.pop("schema_version"), "schema_version"),
        (lambda d: d.update(row=[]), r"no field 'row'; did you mean 'rows'"),
        (lambda d: d.pop("rows"), "lacks the field 'rows'"),
        (lambda d: d["rows"][3].pop("chosen_on"), r"report.rows\[3\] lacks the field 'chosen_on'"),
        (lambda d: d["rows"][0].update(n="many"), r"report.rows\[0\].n should be int, got 'many'"),
        (lambda d: d["rows"][0].update(value=True), r"rows\[0\].value should be float, got True"),
        (lambda d: d["data"]["duplicates"][0].update(kind="vague"), r"kind should be .*identical"),
        (lambda d: d["confusions"][0].update(counts={}), r"confusions\[0\].counts should be tuple"),
        (lambda d: d.update(data=[]), "report.data should be an object"),
    ],
)
def test_refuses_another_document(report, tmp_path, change, message):
    write_report(report, tmp_path)
    path = tmp_path / "report.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=message):
        read_report(path)


def test_refuses_what_is_no_report(tmp_path):
    with pytest.raises(DataError, match="there is no report at"):
        read_report(tmp_path)
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(DataError, match="is not JSON"):
        read_report(tmp_path)


def test_the_schema_documents_exactly_the_fields():
    """Every field of the dataclasses stands in its section's table, and nothing else does."""
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", SCHEMA.read_text(), flags=re.DOTALL | re.MULTILINE))
    top = SCHEMA.read_text().split("\n## ")[0]
    documented = {
        types.Report: (top, {"schema_version"}),
        types.Row: (sections["rows"].split("| metric |")[0], set()),
        types.Recommendation: (sections["recommendation"], set()),
        types.Cost: (sections["costs"], set()),
        types.Confusion: (sections["confusions"], set()),
        types.Mistake: (sections["mistakes"], set()),
        types.DataSummary: (sections["data"], set()),
        types.Reliability: (sections["reliability"], set()),
        types.RiskCoverage: (sections["risk_coverages"], set()),
        types.Forecast: (sections["forecasts"], set()),
        types.Detection: (sections["detections"], set()),
        types.FrontierPoint: (sections["frontier"], set()),
        types.Geometry: (sections["geometry"], set()),
    }
    for dataclass, (section, extra) in documented.items():
        first_cells = re.findall(r"^\| (`.*?) \|", section, flags=re.MULTILINE)
        named = set(re.findall(r"`(\w+)`", " ".join(first_cells)))
        assert named == {f.name for f in dataclasses.fields(dataclass)} | extra, dataclass
    geometry = (types.SplitGeometry, types.Movement, types.DistortionReading, types.StageMovement)
    for name, parts in (("data", (types.Quarantined, types.Duplicate)), ("geometry", geometry)):
        for f in (field for part in parts for field in dataclasses.fields(part)):
            assert f"`{f.name}`" in sections[name], f.name
    for f in dataclasses.fields(types.Neighbour):
        assert f"`{f.name}`" in sections["mistakes"].split("`neighbours`")[1], f.name


def test_a_report_from_before_there_were_neighbours_is_read(report, tmp_path):
    write_report(report, tmp_path)
    document = json.loads((tmp_path / "report.json").read_text())
    for mistake in document["mistakes"]:
        del mistake["neighbours"]
    (tmp_path / "report.json").write_text(json.dumps(document))
    mistakes = read_report(tmp_path).mistakes
    assert [m.id for m in mistakes] == [m.id for m in report.mistakes]
    assert all(m.neighbours == () for m in mistakes)


def test_the_schema_documents_every_metric(report):
    text = SCHEMA.read_text()
    for metric in {row.metric.split(":")[0] for row in report.rows}:
        assert f"`{metric}" in text, metric
