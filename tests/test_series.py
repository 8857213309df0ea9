"""Reading series: bundled, CSV and .npy."""

import numpy as np
import pytest

import fastrnn
from fastrnn.series import BUNDLED


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
    path = write(tmp_path, "\ufeffyear, a ,b\n2000,1,2\n\n2001,3,4\n")
    assert fastrnn.load_series(path).tolist() == [2, 4]
    assert fastrnn.load_series(path, column="a").tolist() == [1, 3]
    with pytest.raises(
        ValueError, match="column must be one of year, a, b, got 'yaer'; did you mean 'year'"
    ):
        fastrnn.load_series(path, column="yaer")


def test_a_csv_without_a_header(tmp_path):
    path = write(tmp_path, "1,10\n2,20\n")
    assert fastrnn.load_series(path).tolist() == [10, 20]
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
    with pytest.raises(ValueError, match="x.npz must be a .csv or .npy file"):
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
        ("x\n1\n\"2\n", "series.csv is not a CSV file"),
    ],
)  # fmt: skip
def test_wrong_csv(tmp_path, text, match):
    with pytest.raises(ValueError, match=match):
        fastrnn.load_series(write(tmp_path, text))


def test_binary_file_is_no_csv(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ValueError, match="x.csv is not a CSV file"):
        fastrnn.load_series(tmp_path / "x.csv")


def test_npy(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.arange(6, dtype=np.int32).reshape(2, 3))
    assert fastrnn.load_series(path).tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(ValueError, match="column is for CSV files"):
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
