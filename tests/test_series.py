"""Reading series: bundled, text, Parquet and .npy."""

import gzip
import io
import os
import sys
import threading
from importlib.util import find_spec

import numpy as np
import pytest

import fastrnn
from fastrnn.series import BUNDLED
from fastrnn.text import arrow, column, lines

# Texts are read by both parsers, where both are installed.
PARSERS = ["NumPy", "Arrow"] if find_spec("pyarrow") else ["NumPy"]


@pytest.fixture(autouse=True, params=PARSERS)
def parser(request, monkeypatch):
    monkeypatch.setattr(column, "ARROW_FROM", 1 if request.param == "Arrow" else sys.maxsize)


def write(tmp_path, text, name="series.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_bundled_series_are_what_their_notes_say():
    assert fastrnn.load_series("sunspots").shape == (309,)
    assert fastrnn.load_series("elnino").shape == (732,)
    assert fastrnn.load_series("elnino")[:2].tolist() == [23.11, 24.2]
    assert fastrnn.load_series("co2", fill="interpolate").shape == (2284,)
    assert fastrnn.load_series("co2", fill="drop").shape == (2284 - 59,)
    assert {"sunspots", "elnino", "co2"} == set(BUNDLED)


def test_column_by_name_and_the_last_by_default(tmp_path):
    path = write(tmp_path, "\ufeffyear, a ,b\n2000,1,2\n2001,3,4\n")
    assert fastrnn.load_series(path).tolist() == [2, 4]
    assert fastrnn.load_series(path, column="a").tolist() == [1, 3]
    with pytest.raises(
        ValueError, match="column must be one of year, a, b, got 'yaer'; did you mean 'year'"
    ):
        fastrnn.load_series(path, column="yaer")


def test_a_csv_without_a_header(tmp_path):
    path = write(tmp_path, "1,10.5\n2,20.5\n")
    assert fastrnn.load_series(path).tolist() == [10.5, 20.5]
    assert fastrnn.load_series(path, column="1").tolist() == [1, 2]


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators(tmp_path, separator):
    path = write(tmp_path, f"a{separator}b\n1{separator}2\n")
    assert fastrnn.load_series(path).tolist() == [2]


def test_columns_of_one_name(tmp_path):
    path = write(tmp_path, "x,x\n1,2\n")
    assert fastrnn.load_series(path).tolist() == [2]
    with pytest.raises(ValueError, match="series.csv has 2 columns 'x'"):
        fastrnn.load_series(path, column="x")


def test_a_gap_before_any_number_is_no_header(tmp_path):
    assert fastrnn.load_series(write(tmp_path, "NA\n1\n"), fill="drop").tolist() == [1]


def test_npz_is_refused(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    with pytest.raises(
        ValueError, match="x.npz is an archive of arrays: save one array with numpy.save as .npy"
    ):
        fastrnn.load_series(tmp_path / "x.npz")


def test_gaps_are_filled_only_on_request(tmp_path):
    path = write(tmp_path, 'x\n1\nNA\n3\n""\n7\n')
    with pytest.raises(ValueError, match="the series has gaps, 2 in 5 values: choose fill="):
        fastrnn.load_series(path)
    assert fastrnn.load_series(path, fill="interpolate").tolist() == [1, 2, 3, 5, 7]
    assert fastrnn.load_series(path, fill="drop").tolist() == [1, 3, 7]
    with pytest.raises(ValueError, match="fill must be one of interpolate, drop, got 'drp'"):
        fastrnn.load_series(path, fill="drp")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("x\n1\ntwo\n3\n", "series.csv, line 3, column 'x': expected a number, got 'two'"),
        ("a,b\n1,2\n3\n", "series.csv, line 3: expected 2 cells, got 1"),
        ("", "series.csv is empty"),
        ("x\n", "the series is empty"),
        ("x\nnan\n\"\"\n", "the series has no values, only gaps"),
        ("x\n1\ninf\n", "the series must be finite, got inf"),
        ("x\n1\n\"2\n", "series.csv is not a CSV file: line 3"),
        ("\"x\n1\n2\n", "series.csv is not a CSV file: line 1"),
        ("1.5,2.5\nfoo,bar\n", "series.csv, line 2, column '2': expected a number, got 'bar'"),
    ],
)  # fmt: skip
def test_wrong_csv(tmp_path, text, match):
    with pytest.raises(ValueError, match=match):
        fastrnn.load_series(write(tmp_path, text))


ONE_OR_TWO = "'{}' may be {} with a decimal comma, or {} and {} in two columns: choose decimal=','"
NAMES = "'{}' may be a header or the first values: choose header=True or header=False"


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (",0\n0,0.5\n1,1.5\n", [0.5, 1.5]),  # Series.to_csv()
        (",2019\n2000-01-01,5\n2000-01-02,6\n", [5, 6]),
        ("date,2019\n2000-01-01,5\n2000-01-02,6\n", [5, 6]),
        ("2019-01,2019-02\n1.5,2.5\n", [2.5]),
        ("x\n1\n2\n", [1, 2]),
        ("\n \nx\n1\n2\n", [1, 2]),
        ("x\nNA\n2\n", [2]),
        ("a,NA\n1,2\n", [2]),
        ("a,b,\n1,2,\n3,4,\n", [2, 4]),
        ('t,x\n"1\n\n2",3\n"1",4\n', [3, 4]),
        ('x,y\n1,"2"\n', [2]),
        ("x\r\n1\r\n2\r\n", [1, 2]),
        ("a|b\n1|2\n", [2]),
    ],
)
def test_a_header_is_no_value(text, values, tmp_path):
    assert fastrnn.load_series(write(tmp_path, text), fill="drop").tolist() == values


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1958-03-29,316.1\n1958-04-05,317.3\n", [316.1, 317.3]),
        ("1958-03-29,316\n1958-04-05,317\n", [316, 317]),
        ("Jan 2020,5\nFeb 2020,6\n", [5, 6]),
        ("Jan,5.5\nFeb,6\n", [5.5, 6]),
        ("5\n11\n16\n", [5, 11, 16]),
        ("5\n11.5\n16\n", [5, 11.5, 16]),
        ("0.5\n1.5\n", [0.5, 1.5]),
        ("1,2,5\n2,3,8\n3,4,7\n", [5, 8, 7]),
        ("5", [5]),
        pytest.param(f"{'0' * 5000}1;7\n2;8\n", [7, 8], id="thousands of digits"),
    ],
)
def test_a_file_without_a_header_keeps_its_first_row(text, values, tmp_path):
    assert fastrnn.load_series(write(tmp_path, text)).tolist() == values


@pytest.mark.parametrize(
    ("text", "first", "with_header", "without"),
    [
        ("0\n0.125\n1.5\n", "0", [0.125, 1.5], [0, 0.125, 1.5]),  # to_csv(index=False)
        ("0\n1\n2\n", "0", [1, 2], [0, 1, 2]),
        ("2019,2020\n1.5,2.5\n3.5,4.5\n", "2019, 2020", [2.5, 4.5], [2020, 2.5, 4.5]),
        ("2019;2020\n1;2\n3;7\n", "2019; 2020", [2, 7], [2020, 2, 7]),
        ("name,2019\nfoo,5\nbar,6\n", "name, 2019", [5, 6], [2019, 5, 6]),
        ("100\n99.5\n98.7\n", "100", [99.5, 98.7], [100, 99.5, 98.7]),
    ],
)
def test_what_may_be_a_header_or_values_is_refused(text, first, with_header, without, tmp_path):
    path = write(tmp_path, text)
    message = "series.csv, line 1: " + NAMES.format(first.replace(";", ","))
    with pytest.raises(ValueError, match=message):
        fastrnn.load_series(path)
    assert fastrnn.load_series(path, header=True).tolist() == with_header
    assert fastrnn.load_series(path, header=False).tolist() == without


@pytest.mark.parametrize("text", ["A,1.5\n5,2.5\n", "2020-01-01,lost\n2020-01-02,5\n"])
def test_a_first_row_that_is_half_header_half_values_is_refused(text, tmp_path):
    with pytest.raises(ValueError, match="may be a header or the first values"):
        fastrnn.load_series(write(tmp_path, text))


def test_a_decimal_comma_and_two_columns_are_not_mixed_up(tmp_path):
    path = write(tmp_path, "1,5\n2,5\n3,5")
    with pytest.raises(ValueError, match=ONE_OR_TWO.format("1,5", "1.5", 1, 5)):
        fastrnn.load_series(path)
    assert fastrnn.load_series(path, decimal=",").tolist() == [1.5, 2.5, 3.5]
    assert fastrnn.load_series(path, separator=",").tolist() == [5, 5, 5]
    years = write(tmp_path, "2019,2020\n5,7\n6,9\n")
    with pytest.raises(ValueError, match=ONE_OR_TWO.format("2019,2020", "2019.2020", 2019, 2020)):
        fastrnn.load_series(years)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1;1,5\n2;2,5\n3;3,5", [1.5, 2.5, 3.5]),
        ("t;v\n1;1,5\n2;NA\n3;-3,5e2\n", [1.5, -350]),
        ("x\n1,5\n2,5\n", [1.5, 2.5]),
        ("1,5\n2\n3,5\n", [1.5, 2, 3.5]),
        ('a,b\nu,"1,5"\nv,"2,5"\n', [1.5, 2.5]),
        ("a\tb\n1\t1,5\n", [1.5]),
    ],
)
def test_a_decimal_comma_is_found(text, values, tmp_path):
    assert fastrnn.load_series(write(tmp_path, text), fill="drop").tolist() == values


@pytest.mark.parametrize("separator", ["\t", ";", "|", ","])
@pytest.mark.parametrize("decimal", [".", ","])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_what_was_written_is_read(separator, decimal, newline, tmp_path):
    values = np.random.default_rng().standard_normal(300)
    values[100:110] = np.nan
    quote = '"' if separator == decimal else ""
    cells = [f"{quote}{value!r}{quote}".replace(".", decimal) for value in values.tolist()]
    rows = ["day", "x"], *([f"2000-01-{i:02}", cell] for i, cell in enumerate(cells))
    path = tmp_path / "x.csv"
    path.write_bytes(newline.join(separator.join(row) for row in rows).encode())
    found = fastrnn.load_series(path, fill="drop")
    assert (found == values[~np.isnan(values)]).all()
    path.write_bytes(newline.join(separator.join(row) for row in rows[1:]).encode())
    assert (fastrnn.load_series(path, fill="drop") == found).all()


def test_a_mark_of_thousands_beside_decimals_is_named(tmp_path):
    (tmp_path / "x.csv").write_text("a;b\n1;1.234,5\n2;2.345,5\n")
    for decimal in (None, ","):
        with pytest.raises(ValueError, match="'1.234,5'; write thousands without a mark"):
            fastrnn.load_series(tmp_path / "x.csv", decimal=decimal)


def test_thousands_are_no_decimals(tmp_path):
    path = write(tmp_path, "t;v\n1;1,234\n2;2,345\n")
    with pytest.raises(ValueError, match="'1,234' may be 1.234 or 1234: choose decimal=','"):
        fastrnn.load_series(path)
    assert fastrnn.load_series(path, decimal=",").tolist() == [1.234, 2.345]
    path = write(tmp_path, "t;v\n1;1,5\n2;1.234,5\n")
    with pytest.raises(ValueError, match=r"line 3, column 'v': expected a number, got '1.234,5'"):
        fastrnn.load_series(path)
    path = write(tmp_path, "t;v\n1;1,5\n2;1.234\n")
    with pytest.raises(ValueError, match=r"line 3, column 'v': expected a number, got '1.234'"):
        fastrnn.load_series(path, decimal=",")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("x\n1\n\n3\n\n\n", [1, 2, 3]),
        ("a,b\n1,2\n \n3,4\n", [2, 3, 4]),
        ("x\n1\n\n\n4", [1, 2, 3, 4]),
    ],
)
def test_a_blank_line_is_a_gap(text, values, tmp_path):
    path = write(tmp_path, text)
    with pytest.raises(ValueError, match="the series has gaps"):
        fastrnn.load_series(path)
    assert fastrnn.load_series(path, fill="interpolate").tolist() == values


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x\n\n1\n3\n", "begins with one, no value before it: choose 'drop'"),
        ("\n1\n3\n", "begins with one, no value before it: choose 'drop'"),
        ("x\n1\n3\nNA\n", "ends with one, no value after it: choose 'drop'"),
    ],
)
def test_no_value_is_invented_from_one_neighbour(text, words, tmp_path):
    path = write(tmp_path, text)
    with pytest.raises(
        ValueError, match=f"fill='interpolate' needs values on both sides of a gap, .* {words}"
    ):
        fastrnn.load_series(path, fill="interpolate")
    assert fastrnn.load_series(path, fill="drop").tolist() == [1, 3]


def test_a_series_in_a_line_is_refused(tmp_path):
    path = write(tmp_path, "1.5,2.5,3.5\n")
    with pytest.raises(
        ValueError, match="series.csv: 1 row of 3 numbers may be a series in a line or in columns"
    ):
        fastrnn.load_series(path)
    assert fastrnn.load_series(path, column="3").tolist() == [3.5]
    with pytest.raises(ValueError, match="2 rows of 3 numbers may be series in lines"):
        fastrnn.load_series(write(tmp_path, "1.5,2.5,3.5\n4.5,5.5,6.5\n"))


@pytest.mark.parametrize(
    "mark",
    ["#N/A", "#DIV/0!", ".", "..", "NA", "NaN", "-nan", "null", "None", "<NA>", "N/A", "", '""'],
)
def test_marks_of_missing_values(mark, tmp_path):
    path = write(tmp_path, f"DATE,GDP\n1947-01-01,243.5\n1947-04-01, {mark}\n1947-07-01,250.5\n")
    assert fastrnn.load_series(path, fill="interpolate").tolist() == [243.5, 247, 250.5]


def test_marks_of_ones_own(tmp_path):
    path = write(tmp_path, "x\n1\n-999\nlost\n4\n")
    found = fastrnn.load_series(path, na=["-999", "lost"], fill="interpolate")
    assert found.tolist() == [1, 2, 3, 4]
    assert fastrnn.load_series(write(tmp_path, "1\n2\n-999\n"), na="-999", fill="drop").size == 2
    path = write(tmp_path, "x\n1,5\nlost\n2,5\n")
    assert fastrnn.load_series(path, na="lost", fill="drop").tolist() == [1.5, 2.5]


def test_comments(tmp_path):
    path = write(tmp_path, "# of mine\n# since 2000\nx\n1 # first\n# no gap\n2\n")
    assert fastrnn.load_series(path, comment="#").tolist() == [1, 2]
    with pytest.raises(ValueError, match="got '# since 2000'; comment='#' leaves such lines out"):
        fastrnn.load_series(write(tmp_path, "# of mine\n# since 2000\n1\n2\n"), header=True)
    with pytest.raises(ValueError, match="line 4, column 'x': expected a number, got 'two'"):
        fastrnn.load_series(write(tmp_path, "# of mine\nx\n1\ntwo\n"), comment="#")


def test_blanks_separate_on_request(tmp_path):
    path = write(tmp_path, "  1   0.5\n 10   1.5 \n")
    with pytest.raises(ValueError, match="got '1   0.5'; separator=' ' divides at blanks"):
        fastrnn.load_series(path)
    assert fastrnn.load_series(path, separator=" ").tolist() == [0.5, 1.5]


def test_another_column_is_named_where_the_last_is_no_number(tmp_path):
    path = write(tmp_path, "value,date\n5,2020-01-01\n6,2020-01-02\n")
    with pytest.raises(ValueError, match="got '2020-01-01'; column='value' is one of numbers"):
        fastrnn.load_series(path)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"separator": "ab"}, ValueError, "separator must be one character .*, got 'ab'"),
        ({"separator": "."}, ValueError, "separator must be one character that no number has"),
        ({"comment": ""}, ValueError, "comment must be one character that no number has"),
        ({"decimal": ";"}, ValueError, "decimal must be one of ., ,, got ';'"),
        ({"header": "yes"}, TypeError, "header must be True, False or None, got 'yes'"),
        ({"na": 5}, TypeError, "na must be text or several texts, got 5"),
        ({"encoding": "no"}, ValueError, "encoding must be a text encoding .*, got 'no'"),
        ({"encoding": "hex"}, ValueError, "encoding must be a text encoding .*, got 'hex'"),
    ],
)
def test_wrong_options(options, error, match, tmp_path):
    with pytest.raises(error, match=match):
        fastrnn.load_series(write(tmp_path, "x\n1\n"), **options)


@pytest.mark.parametrize(
    "options",
    [{"encoding": "latin-1"}, {"header": True}, {"separator": ","}, {"na": "x"}, {"decimal": "."}],
)
def test_options_of_text_are_for_text(options, tmp_path):
    ((name, value),) = options.items()
    np.save(tmp_path / "x.npy", np.arange(3))
    for source in ("sunspots", tmp_path / "x.npy"):
        with pytest.raises(ValueError, match=f"{name} is for text files, got .*{value}.* for "):
            fastrnn.load_series(source, **options)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le"])
def test_text_in_other_encodings(encoding, tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes("été\n1\n2\n".encode(encoding))
    words = {
        "latin-1": "is no UTF-8 text, it has the byte 0xe9: choose its encoding, as encoding='lat",
        "utf-16": "is UTF-16 text: choose encoding='utf-16'",
        "utf-16-le": "is no UTF-8 text, it has zero bytes: .* encoding='utf-16-le'",
    }
    with pytest.raises(ValueError, match=f"x.csv {words[encoding]}"):
        fastrnn.load_series(path)
    assert fastrnn.load_series(path, encoding=encoding).tolist() == [1, 2]
    with pytest.raises(ValueError, match="x.csv is no text in the encoding 'ascii'"):
        fastrnn.load_series(path, encoding="ascii")


def test_a_wrong_byte_far_down_is_found(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(b"x\n" + b"1\n" * 3 * lines.BLOCK + b"\xe9\n")
    with pytest.raises(ValueError, match="x.csv is no UTF-8 text, it has the byte 0xe9"):
        fastrnn.load_series(path)


def test_a_long_file_is_read_in_blocks(tmp_path, monkeypatch):
    values = np.random.default_rng().standard_normal(2 * lines.BLOCK + 7)
    rows = [f"{value!r},{number}" for number, value in enumerate(values.tolist())]
    text = "x,n\n" + "\n".join(rows) + "\n"
    assert (fastrnn.load_series(write(tmp_path, text), column="x") == values).all()
    with pytest.raises(ValueError, match=f"line {len(rows) + 2}, column 'x': expected a number"):
        fastrnn.load_series(write(tmp_path, text + "one,1\n2,2\n"), column="x")
    monkeypatch.setattr(lines, "BLOCK", 2)
    path = write(tmp_path, 'a,x\n"1\n\n\n\n",5\n\n\n\n2,NA\n\n3,7\n\n\n\n\n')
    assert fastrnn.load_series(path, fill="drop").tolist() == [5, 7]
    with pytest.raises(ValueError, match="the series has gaps, 5 in 7 values"):
        fastrnn.load_series(path)


def test_both_parsers_read_the_same_bits(monkeypatch):
    pytest.importorskip("pyarrow")
    rng = np.random.default_rng()
    bits = rng.integers(0, 1 << 64, 20_000, np.uint64).view(np.float64)
    values = bits[np.isfinite(bits)].tolist()
    cells = [format(value, spec) for value in values for spec in (".17g", ".25e", ".3g")]
    dialect = column.Dialect("\x1f", ".", None, ["1"], [True], 0, 0, frozenset({""}))
    rows = [f"{cell}\n" for cell in cells]
    by_arrow, by_numpy = arrow.values("".join(rows), dialect), column._parsed(rows, dialect)
    assert (by_arrow.view(np.uint64) == by_numpy.view(np.uint64)).all()
    assert (by_numpy == np.array([float(cell) for cell in cells])).all()


def test_what_was_read_is_logged(tmp_path, caplog):
    path = write(tmp_path, "n;a;b\n1;1,5;\n2;NA;\n3;3,5;\n")
    fastrnn.load_series(path, column="a", fill="interpolate")
    assert caplog.messages == [
        "series.csv: 3 values of column 'a', number 2 of 3; header in line 1, decimal comma; "
        "1 gap interpolated"
    ]
    fastrnn.load_series(write(tmp_path, "5\n"))
    assert caplog.messages[1:] == ["series.csv: 1 value of column '1'; no header"]


def test_compressed_text(tmp_path):
    packed = gzip.compress(b"x\n1\n2\n")
    for name in ("x.csv.gz", "named-otherwise.csv"):
        (tmp_path / name).write_bytes(packed)
        assert fastrnn.load_series(tmp_path / name).tolist() == [1, 2]
    (tmp_path / "x.csv.gz").write_bytes(packed[:-9])
    with pytest.raises(ValueError, match="x.csv.gz is a damaged gzip file"):
        fastrnn.load_series(tmp_path / "x.csv.gz")


def test_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"x\n1\n2\n")))
    assert fastrnn.load_series("-").tolist() == [1, 2]
    assert not sys.stdin.closed


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_named_pipes(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=("x\n1\n2\n",))
    writer.start()
    assert fastrnn.load_series(tmp_path / "pipe").tolist() == [1, 2]
    writer.join()


@pytest.mark.parametrize(
    ("name", "beginning", "match"),
    [
        ("x.xlsx", b"", "x.xlsx is an Excel workbook: save the sheet as CSV"),
        ("x.csv", b"PK\x03\x04", "x.csv is a ZIP archive or an Excel workbook"),
        ("x.csv", b"PAR1", "x.csv is a Parquet file: name it .parquet"),
        ("x.csv", b"\x93NUMPY", "x.csv is a NumPy array: name it .npy"),
        ("x.csv", b"\x89PNG\r\n\0", "x.csv is no UTF-8 text, it has zero bytes: a binary file"),
        ("x.json", b"[1]", "x.json is JSON: save the values as CSV"),
        ("x.h5", b"", "x.h5 is an HDF5 file"),
        ("x.csv.zst", b"", "x.csv.zst is compressed in a way that is not read: unpack it"),
    ],
)
def test_formats_that_are_not_read_are_named(name, beginning, match, tmp_path):
    (tmp_path / name).write_bytes(beginning)
    with pytest.raises(ValueError, match=match):
        fastrnn.load_series(tmp_path / name)


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "x.parquet"
    columns = {"n": [1, 2, 3], "x": [0.5, None, 1.5], "name": ["a", "b", "c"]}
    parquet.write_table(pyarrow.table(columns), path)
    assert fastrnn.load_series(path, column="n").tolist() == [1, 2, 3]
    assert fastrnn.load_series(path, column="x", fill="interpolate").tolist() == [0.5, 1, 1.5]
    with pytest.raises(ValueError, match="column 'name': expected numbers, got string; column="):
        fastrnn.load_series(path)
    with pytest.raises(ValueError, match="column must be one of n, x, name, got 'y'"):
        fastrnn.load_series(path, column="y")
    with pytest.raises(ValueError, match="separator is for text files, got ';' for x.parquet"):
        fastrnn.load_series(path, column="x", separator=";")
    path.write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="x.parquet is not a readable Parquet file"):
        fastrnn.load_series(path)


def test_the_index_of_pandas_is_no_column_of_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"x": [1.5, 2.5]}, index=[10, 11])
    table.to_parquet(tmp_path / "x.parquet")
    assert fastrnn.load_series(tmp_path / "x.parquet").tolist() == [1.5, 2.5]


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"x.parquet needs pyarrow: .*pip install 'fastrnn\[parquet\]'"
    ):
        fastrnn.load_series(tmp_path / "x.parquet")


def test_a_path_is_a_file_and_never_a_bundled_series(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="series 'sunspots': no such file"):
        fastrnn.load_series(tmp_path.__class__("sunspots"))
    (tmp_path / "elnino").mkdir()
    assert fastrnn.load_series("elnino").size == 732
    write(tmp_path, "x\n1\n2\n", "sunspots")
    assert fastrnn.load_series(tmp_path.__class__("sunspots")).tolist() == [1, 2]
    assert fastrnn.load_series("./sunspots").tolist() == [1, 2]
    with pytest.raises(
        ValueError, match="'sunspots' is bundled, and also a file in this folder: './sunspots' is"
    ):
        fastrnn.load_series("sunspots")


@pytest.mark.parametrize("source", ["s3://b/x.csv", "https://a.b/x.csv"])
def test_addresses_are_not_read(source):
    with pytest.raises(ValueError, match="addresses are not read, download the file first"):
        fastrnn.load_series(source)


def test_a_source_is_a_name_or_a_path():
    with pytest.raises(TypeError, match="source must be a name or a path, got list"):
        fastrnn.load_series([1.0])


def test_npy(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.arange(6, dtype=np.int32).reshape(2, 3))
    assert fastrnn.load_series(path).tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(ValueError, match="column is for tables, got 'x' for x.npy"):
        fastrnn.load_series(path, column="x")
    np.save(path, np.zeros((2, 2, 2)))
    with pytest.raises(
        ValueError, match=r"x.npy must have shape \(T,\) or \(B, T\), got \(2, 2, 2\)"
    ):
        fastrnn.load_series(path)
    np.save(path, np.array([{}]), allow_pickle=True)
    with pytest.raises(ValueError, match="x.npy is not a readable .npy array"):
        fastrnn.load_series(path)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match="x.npy is not a readable .npy array"):
        fastrnn.load_series(path)
    np.save(path, np.array([1j]))
    with pytest.raises(TypeError, match="x.npy must be float32 or float64"):
        fastrnn.load_series(path)
    np.save(path, np.full((2, 2), np.nan))
    with pytest.raises(ValueError, match="only gaps"):
        fastrnn.load_series(path, fill="drop")


def test_missing_file(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="no such file, nor one of the bundled co2, elnino, sunspots"
    ):
        fastrnn.load_series("sunspot")
    with pytest.raises(FileNotFoundError, match="a folder, not a file"):
        fastrnn.load_series(tmp_path)
