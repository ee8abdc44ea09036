"""The documents say what the result files say."""

import json
import re

import pytest
import write_results

# What every result file holds.
FIELDS = {"benchmark", "command", "commit", "date", "machine", "rows"}
MACHINE_FIELDS = {"cpu", "cores", "avx512", "bf16", "torch", "gpu"}
RESULT_FILES = sorted(write_results.RESULTS.glob("*.json"))


@pytest.mark.parametrize("path", write_results.documents(), ids=lambda path: path.name)
def test_documents_agree_with_the_results(path):
    text = path.read_text()
    assert write_results.filled(text) == text, "run `make results`"


def test_every_table_of_the_results_page_exists_once():
    names = re.findall(r"<!-- results:([a-z0-9-]+) -->", (write_results.ROOT / "docs/results.md").read_text())
    assert len(names) == len(set(names)) and set(names) <= set(write_results.CONTENTS)


@pytest.mark.parametrize("path", RESULT_FILES, ids=lambda path: path.stem)
def test_result_files_tell_where_their_rows_come_from(path):
    result = json.loads(path.read_text())
    assert FIELDS <= set(result) and set(result["machine"]) == MACHINE_FIELDS
    assert re.fullmatch(r"[0-9a-f]{7}\+?", result["commit"]) and re.fullmatch(r"\d{4}-\d\d-\d\d", result["date"])
    assert result["rows"]


def test_every_result_file_is_shown_somewhere():
    shown = {name for content in write_results.CONTENTS.values() for name in write_results.files_of(content)}
    assert shown == {path.stem for path in RESULT_FILES}


def test_values_stand_in_sentences_and_tables_on_their_own_lines():
    text = write_results.filled("a <!-- results:copy-rate-ict -->old<!-- /results --> b")
    assert text == "a <!-- results:copy-rate-ict -->0.4 %<!-- /results --> b"
    text = write_results.filled("<!-- results:fit-scale -->\n<!-- /results -->")
    assert text.splitlines()[1].startswith("| scans") and text.endswith("\n<!-- /results -->")


def test_an_unknown_table_is_refused():
    with pytest.raises(SystemExit, match="no-such-table"):
        write_results.filled("<!-- results:no-such-table -->\n<!-- /results -->")


def test_durations_are_readable():
    assert [write_results.duration(seconds) for seconds in (5.2, 53.8, 118, 815)] == [
        "5.2 s",
        "54 s",
        "1 min 58 s",
        "13 min 35 s",
    ]
