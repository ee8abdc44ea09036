"""The page of prepared scans shows every scan, doubtful ones first, with text and paths as browsers need them."""

from html.parser import HTMLParser

from hyperdiffusion.rendering.preparation_page import write_preparation_page
from overfit.scans.preparation_report import PreparationReport


class Rows(HTMLParser):
    """Collects the text of each row's cells, and the pictures."""

    def __init__(self, page: str):
        super().__init__()
        self.rows, self.pictures = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag == "tr":
            self.rows.append([])
        elif tag == "img":
            self.pictures.append(dict(attributes)["src"])

    def handle_data(self, data):
        if self.rows and data.strip():
            self.rows[-1].append(data)


def test_doubtful_scans_come_first(tmp_path):
    reports = {
        tmp_path / "good.ply": PreparationReport("good.obj", count=7000, scan_mm=0.1, width_mm=180.0),
        tmp_path / "worse.ply": PreparationReport("worse.obj", count=7000, scan_mm=0.4, width_mm=181.0),
        tmp_path / "two.ply": PreparationReport("two.obj", count=7000, scan_mm=0.1, other_head=True),
        tmp_path / "odd.ply": PreparationReport("odd.obj", count=7000, scan_mm=0.2, width_mm=187.0, size="doubtful"),
        tmp_path / "a b" / "ü<1>.ply": PreparationReport("a b/ü<1>.obj", skipped="a b/ü<1>.obj: no face in it"),
    }
    page = Rows(write_preparation_page(reports, tmp_path).read_text(encoding="utf-8"))
    assert [row[0] for row in page.rows[1:]] == ["a b/ü<1>.obj", "odd.obj", "two.obj", "worse.obj", "good.obj"]
    assert page.rows[1][-1] == "no face in it"
    assert page.rows[2][-1] == (
        "7,000 triangles; size doubtful: 187 mm between the ears; the head lies 0.20 mm off the scan"
    )
    assert page.pictures[0] == "a%20b/%C3%BC%3C1%3E.png"
