"""Tables of attributes: which row is whose, what a column is, and what is refused."""

import pytest
import torch

from hyperdiffusion import read_attributes
from hyperdiffusion.diffusion.attribute_table import _heads_by_name
from overfit import BadInput


@pytest.fixture
def read(small_store, tmp_path):
    """A function that reads lines of CSV for the small store, whose heads are 00.ply to 07.ply."""

    def read(*lines: str, **options):
        (tmp_path / "heads.csv").write_text("\n".join(lines))
        return read_attributes(tmp_path / "heads.csv", small_store, **options)

    return read


def test_numbers_and_levels_are_told_apart_and_missing_values_are_kept(read):
    table = read("file,age,glasses", "02.ply,1.5,none", "00,0.5,thin", "05.ply,?,", "07.ply,NA,thin")
    age, glasses = table.attributes.columns
    assert (age.name, age.mean, age.low, age.high) == ("age", 1.0, 0.5, 1.5)
    assert glasses.levels == ("none", "thin") and glasses.frequencies == pytest.approx((1 / 3, 2 / 3))
    expected = torch.full((8, 2), torch.nan)
    expected[2], expected[0], expected[7, 1] = torch.tensor([1.5, 0.0]), torch.tensor([0.5, 1.0]), 1.0
    torch.testing.assert_close(table.values, expected, equal_nan=True)
    assert not table.remarks


def test_other_separators_and_another_place_of_the_names_are_read(read):
    table = read("age;file;size", "1;00.ply;2", "2;01.ply;4")
    assert table.attributes.names == ("age", "size") and table.values[1].tolist() == [2, 4]


def test_columns_without_a_name_are_left_out(read):
    """As a table of pandas has them for its row numbers, and a spreadsheet after its last column."""
    table = read("", ",file,age,,", "0,00.ply,1,,", "1,01.ply,2,,")
    assert table.attributes.names == ("age",)


def test_only_named_columns_are_read(read):
    table = read("file,age,notes", "00,1,a", "01,2,a", columns=["age"])
    assert table.attributes.names == ("age",)


def test_what_is_left_out_is_said(read):
    table = read("file,age,same,notes", "00,1,5,a", "01,2,5,a", "nobody,3,5,a")
    assert table.attributes.names == ("age",)
    assert "1 of 3 rows" in table.remarks[0]
    assert "same is 5 for all" in table.remarks[1] and "notes is a for all" in table.remarks[2]


def test_prepared_scans_are_found_by_the_name_of_their_raw_scan():
    heads = _heads_by_name(["anna.obj.ply", "ben.ply", "ben.obj"])
    assert heads["anna"] == heads["anna.obj"] == 0 and heads["ben.obj"] == 2
    # Which of the two it would be is not known.
    assert "ben" not in heads


MANY = [f"c{index}" for index in range(33)]


@pytest.mark.parametrize(
    "lines, columns, message",
    [
        (["file,age", "x,1", "y,2"], [], "knows no head of the store; .*such as 00.ply.*names x"),
        (["file,age", "00,1", "01,2"], ["hair"], "no column hair; it has age"),
        (["file,age", "00,1", "01,2", "02,old"], [], "line 4: age is 'old', not a number"),
        (["file,age", "00,1", "01,2", "02,inf"], [], "line 4: age is 'inf', not a number"),
        (["file,age", "00,1", "01,2", "02,1e39"], [], "line 4: age is '1e39', not a number"),
        (["file,age", "00,1", "01,1"], [], "column age is 1 for all heads"),
        (["file,age", "00,1", "01,1.00000001"], [], "column age is 1 for all heads"),
        (["file,age,size", "00,1,2", "01,1,3"], ["age"], "column age is 1 for all heads"),
        (["file,glasses", "00,thin", "01,thin"], [], "column glasses is thin for all heads"),
        (["file,age", "00,", "01,nan"], [], "column age has no values"),
        (["file,a=b", "00,1", "01,2"], ["a=b"], "column a=b has = in its name.*; leave it out of `columns`"),
        (["file,age", "00,1", "00.ply,2"], [], "lines 2 and 3 are both of 00.ply"),
        (["file,age", "00,1", "01"], [], "line 3 has 1 columns, the header 2"),
        (["file,age,age", "00,1,1", "01,2,2"], [], "two columns named age"),
        (["file,age"], [], "no table"),
        ([""], [], "no table"),
        (["file,", "00,1"], [], "no column of attributes has a name"),
        (["file,age", '00,"' + 200_000 * "1"], [], "not a CSV file .*missing quotation mark"),
        (["no table"], [], "no table"),
        ([",".join(["file", *MANY]), ",".join(["00"] + ["1"] * 33), ",".join(["01"] + ["2"] * 33)], [], "too many"),
    ],
)
def test_files_that_cannot_be_used_are_named_with_the_reason(read, lines, columns, message):
    with pytest.raises(BadInput, match=f"heads.csv: .*{message}"):
        read(*lines, columns=columns)


def test_files_that_cannot_be_read_are_named(small_store, tmp_path):
    with pytest.raises(BadInput, match="none.csv: no such file"):
        read_attributes(tmp_path / "none.csv", small_store)
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00,\x81")
    with pytest.raises(BadInput, match="binary.csv: not a text file"):
        read_attributes(tmp_path / "binary.csv", small_store)
