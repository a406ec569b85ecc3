"""Tables of predictions read beside Python's csv module: blocks, quotes, encodings, Parquet."""

import csv
import datetime
import decimal
import gzip
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from fairgrape_jax.errors import UsageError
from fairgrape_jax.reports import csv_files, matching, names, prediction_tables
from fairgrape_jax.reports.audit_request import Columns

HEADER = ["id", "label", "prediction", "group", "caption"]


def text_of(rows, terminator="\n"):
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator=terminator, quoting=csv.QUOTE_ALL)
    writer.writerows(rows)
    return file.getvalue()


def stored(path, content):
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def read(path, **columns):
    return prediction_tables.read(path, Columns(**columns))


def words(cells):
    return [cells.names[code] if code >= 0 else None for code in cells.codes]


@pytest.mark.parametrize("terminator", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("suffix", ["csv", "csv.gz"])
def test_rows_do_not_depend_on_where_a_block_ends(terminator, suffix, tmp_path):
    """Every size of a block from one byte to more than the file, so a border at every byte."""
    rng = np.random.default_rng(0)
    captions = ["a\nb", '"', 'say "x"\n9,0,1,c,more', "\n\n", "é, 名", "", "plain", "x\r\ny", "\r"]
    rows = [
        [str(i), "ab"[i % 2], "ab"[i // 2 % 2], "g", captions[rng.integers(len(captions))]]
        for i in range(8)
    ]
    path = stored(tmp_path / f"a.{suffix}", text_of([HEADER, *rows], terminator).encode())
    expected = [row[:4] for row in rows]
    for block in range(1, len(path.read_bytes()) + 60):
        table = csv_files.read(path, HEADER[:4], columns=5, block=block)
        assert [list(row.values()) for row in table.to_pylist()] == expected, block


@pytest.mark.parametrize("suffix", ["csv", "csv.gz"])
@pytest.mark.parametrize("shift", [0, 1, 5, 17])
def test_a_quoted_cell_over_the_border_of_a_real_block(suffix, shift, tmp_path):
    """Rows that look like samples stand within captions; some are longer than a block."""
    rows, size = [], len(",".join(HEADER)) + shift
    for i in range(30_000):
        rows.append([i, i % 2, i % 3 % 2, "ab"[i // 2 % 2], f"{'x' * (i % 41)}\n9{i:06},0,1,c,no"])
    rows[77][-1] = "9,0,1,c,y\n" * (csv_files.BLOCK // 8)
    path = stored(tmp_path / f"a.{suffix}", (text_of([HEADER, *rows]) + "\n" * size).encode())
    table = read(path)
    assert table.rows == 30_000
    assert table.ids.to_pylist() == [str(row[0]) for row in rows]
    assert words(table.predictions[""]) == [str(row[2]) for row in rows]
    assert words(table.cells["group"]) == [row[3] for row in rows]


def test_quotes_within_a_cell_that_has_none_around_it(tmp_path):
    content = 'id,label,prediction,group,size\n1,a,a,x,5"\n2,b,a,y,7" or 8"\n3,b,b,y,9"\n'
    table = read(stored(tmp_path / "a.csv", content.encode()))
    assert table.ids.to_pylist() == ["1", "2", "3"]


@pytest.mark.parametrize("suffix", ["csv", "csv.gz"])
@pytest.mark.parametrize("tail", ['3,a,a,x,"open\n4,b,b,y,z\n', '3,a,a,x,"open', '3,a,a,x,"'])
def test_a_quote_without_an_end_would_hide_rows(tail, suffix, tmp_path):
    content = 'id,label,prediction,group,caption\n1,a,a,x,"fine"\n2,b,b,y,5" long\n' + tail
    path = stored(tmp_path / f"a.{suffix}", content.encode())
    with pytest.raises(UsageError, match="a quoted cell has no end"):
        read(path)


@pytest.mark.parametrize("suffix", ["csv", "csv.gz"])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
def test_the_encoding_is_what_the_first_bytes_say(encoding, suffix, tmp_path):
    rows = [["id", "label", "prediction", "group"]]
    rows += [[f"é{i}", "名", "𝄞x" if i % 3 else "名", "ä" if i % 2 else "ö"] for i in range(500)]
    mark = "\ufeff" if encoding.endswith("e") and "16" in encoding else ""
    path = stored(tmp_path / f"a.{suffix}", (mark + text_of(rows)).encode(encoding))
    table = read(path)
    assert table.ids.to_pylist() == [row[0] for row in rows[1:]]
    assert words(table.predictions[""]) == [row[2] for row in rows[1:]]
    for block in (64, 65, 66, 67, 129):
        same = csv_files.read(
            path, ["label"], encoding=csv_files.detect_encoding(path), columns=4, block=block
        )
        assert same["label"].to_pylist() == ["名"] * 500


def test_another_encoding_is_named(tmp_path):
    content = "id,label,prediction,group\n1,é,é,a\n2,b,b,b\n".encode("cp1252")
    path = stored(tmp_path / "a.csv", content)
    with pytest.raises(UsageError, match="--encoding"):
        read(path)
    assert words(read(path, encoding="cp1252").cells["label"]) == ["é", "b"]
    with pytest.raises(UsageError, match="'klingon' is no encoding"):
        read(path, encoding="klingon")
    unused = "id,label,prediction,group,é\n1,a,a,a,é\n2,b,b,b,ü\n".encode("cp1252")
    assert read(stored(tmp_path / "b.csv", unused)).rows == 2  # of a column that is not read


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_other_delimiters_and_blanks_around_names(delimiter, tmp_path):
    lines = ["id, label ,prediction,group", "1,a,b,x", "2,b,b, y "]
    content = "\n".join(line.replace(",", delimiter) for line in lines)
    table = read(stored(tmp_path / "a.csv", content.encode()))
    assert words(table.cells["label"]) == ["a", "b"]
    assert words(table.cells["group"]) == ["x", "y"]


def test_an_empty_line_of_one_column_is_an_empty_cell(tmp_path):
    path = stored(tmp_path / "a.csv", b"prediction\r\n1\r\n\r\n0\r\n")
    assert words(read(path).predictions[""]) == ["1", None, "0"]
    path = stored(tmp_path / "b.csv", b"prediction,x\r\n1,2\r\n\r\n0,2\r\n\r\n")
    assert words(read(path).predictions[""]) == ["1", "0"]


@pytest.mark.parametrize("cut", [1, 4, 9, 40])
def test_a_gzip_that_is_cut_is_refused(cut, tmp_path):
    content = gzip.compress(text_of([HEADER, *[[i, 0, 1, "a", "x"] for i in range(99)]]).encode())
    path = tmp_path / "a.csv.gz"
    path.write_bytes(content[:-cut])
    with pytest.raises(UsageError, match="not readable as CSV"):
        read(path)
    path.write_bytes(content + gzip.compress(b"99,0,1,a,x\n"))
    assert read(path).rows == 100


TYPES = {
    "int8": pa.array([0, 1, None], pa.int8()),
    "uint64": pa.array([0, 1, None], pa.uint64()),
    "float16": pa.array(np.array([0, 1, np.nan], np.float16)),
    "float32": pa.array(np.array([0, 1, np.nan], np.float32)),
    "float64": pa.array([-0.0, 1.0, np.nan], from_pandas=False),
    "null": pa.array([0.0, 1.0, None]),
    "decimal": pa.array([decimal.Decimal("0.00"), decimal.Decimal("1.00"), None]),
    "string": pa.array(["0", " 1 ", ""]),
    "large": pa.array(["0.0", "1", None], pa.large_string()),
    "view": pa.array(["0", "1.0", None], pa.string_view()),
    "bytes": pa.array([b"0", b"1", None]),
    "dictionary": pa.array(["0", "1", None]).dictionary_encode(),
    "numbers in a dictionary": pa.array([0.0, 1.0, None]).dictionary_encode(),
}


@pytest.mark.parametrize("kind", TYPES)
def test_every_plain_type_of_parquet_is_a_name_or_an_empty_cell(kind, tmp_path):
    table = pa.table({"id": [1, 2, 3], "label": [0, 1, 1], "prediction": TYPES[kind]})
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    cells = read(tmp_path / "a.parquet").predictions[""]
    (cells,) = names.unify([cells])
    assert words(cells) == ["0", "1", None]


def test_truth_values_and_dates_are_the_same_from_csv_and_parquet(tmp_path):
    days = [datetime.date(2020, 1, 2), datetime.date(2021, 1, 2)]
    table = pa.table({"id": days, "label": [True, False], "prediction": [True, True]})
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    content = "id,label,prediction\n2020-01-02,TRUE,True\n2021-01-02,false,true\n"
    stored(tmp_path / "b.csv", content.encode())
    a, b = read(tmp_path / "a.parquet"), read(tmp_path / "b.csv")
    assert a.ids.equals(b.ids)
    columns = [a.cells["label"], a.predictions[""], b.cells["label"], b.predictions[""]]
    assert [words(cells) for cells in names.unify(columns)] == [
        ["True", "False"], ["True", "True"], ["True", "False"], ["True", "True"],
    ]  # fmt: skip


def parts_of_a_folder(folder):
    for place, (group, ids) in enumerate([("007", [1, 2]), ("x=1", [3]), ("10", [4, 5])]):
        inside = folder / "data" / f"group={group.replace('=', '%3D')}"
        inside.mkdir(parents=True)
        label = pa.array([i % 2 for i in ids], pa.int32() if place else pa.int64())
        part = pa.table({"id": ids, "label": label, "prediction": [1.0] * len(ids)})
        pa.parquet.write_table(part, inside / f"part-{place}.parquet")
    return folder / "data"


def test_a_folder_of_parquet_files_is_one_table(tmp_path):
    folder = parts_of_a_folder(tmp_path)
    (folder / "_SUCCESS").write_text("")
    (folder / ".part-9.parquet").write_text("left over")
    (folder / "_temporary").mkdir()
    (folder / "_temporary" / "part-9.parquet").write_text("left over")
    table = read(folder)
    assert table.rows == 5
    by_id = dict(zip(table.ids.to_pylist(), words(table.cells["group"]), strict=True))
    assert by_id == {"1": "007", "2": "007", "3": "x=1", "4": "10", "5": "10"}


def test_files_of_a_folder_are_in_natural_order_and_of_one_form(tmp_path):
    for number in (10, 9, 1):
        part = pa.table({"label": [0], "prediction": [number]})
        pa.parquet.write_table(part, tmp_path / f"part-{number}.parquet")
    assert words(read(tmp_path).predictions[""]) == ["1", "9", "10"]
    pa.parquet.write_table(pa.table({"label": [0]}), tmp_path / "part-11.parquet")
    with pytest.raises(UsageError, match=r"part-11.parquet: no column 'prediction'"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["empty", "a.csv"])
def test_a_folder_without_parquet_files_is_refused(name, tmp_path):
    (tmp_path / name).mkdir()
    with pytest.raises(UsageError, match=r"a folder without \.parquet files"):
        read(tmp_path / name)


def scored(tmp_path, name="a.csv", **columns):
    table = pa.table({"id": [1, 2, 3], **columns})
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    with (tmp_path / "a.csv").open("w") as file:
        csv.writer(file).writerows(
            [table.column_names, *zip(*table.to_pydict().values(), strict=True)]
        )
    return read(tmp_path / name)


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_the_highest_score_is_the_prediction_and_ties_are_counted(name, tmp_path):
    table = scored(tmp_path, name, **{"score_10": [0.1, 2.0, -9.0], "score_9.5": [0.1, 1.0, 8.0]})
    assert words(table.predictions[""]) == ["9.5", "10", "9.5"]
    assert table.ties == 1
    with pytest.raises(UsageError, match="no score above minus infinity"):
        scored(tmp_path, name, score_a=[-np.inf, 1, 1], score_b=[-np.inf, 1, 1])
    with pytest.raises(UsageError, match="empty or undefined scores"):
        scored(tmp_path, name, score_a=[np.nan, 1, 1], score_b=[0, 1, 1])


IDS = {  # of two files, and whether they are those of the same samples
    "1 and 1.0": (["1", "2", "3"], ["1.0", "2.0", "3.0"], True),
    "a sign of zero": (["-0", "1", "2"], ["0", "1.0", "2e0"], True),
    "beyond a float": (
        ["9007199254740993", "9007199254740992"],
        ["9007199254740993", "9007199254740992.0"],
        True,
    ),
    "leading zeros": (["01", "02"], ["1", "2"], False),
    "leading zeros in one row": (["1.0", "02"], ["1", "02"], False),
    "words": (["a1.0", "a1"], ["a1", "a1.0"], True),
    "composed letters": (["e\u0301", "b"], ["é", "b"], True),
    "text in another file": (["1.0", "2.0"], ["1.0", "2.0", "x"], None),
}  # fmt: skip


@pytest.mark.parametrize("kind", IDS)
def test_ids_are_written_alike_in_all_files_or_left_as_they_are(kind, tmp_path):
    first, second, same = IDS[kind]
    tables = []
    for name, ids in (("a.csv", first), ("b.csv", second)):
        rows = [["id", "prediction"], *[[word, "x"] for word in ids]]
        tables.append(read(stored(tmp_path / name, text_of(rows).encode())))
    if same:
        one, other = matching.align(tables)[0]
        assert one.ids.equals(other.ids)
    else:
        with pytest.raises(UsageError, match="ids of"):
            matching.align(tables)
    if same is None:
        assert matching.align(tables, drop=True)[1] == 1


def test_ids_that_are_one_number_are_there_twice(tmp_path):
    content = b"id,prediction\n1,a\n2,b\n1.0,a\n"
    with pytest.raises(UsageError, match=r"1 ids are there more than once \(1\)"):
        matching.align([read(stored(tmp_path / "a.csv", content))])
    content = b"id,prediction\n1,a\nx,b\n1.0,a\n"
    assert matching.align([read(stored(tmp_path / "a.csv", content))])[0][0].rows == 3


def test_rows_are_the_ids_where_no_file_has_any(tmp_path):
    a = read(stored(tmp_path / "a.csv", b"label,prediction\n1,0\n0,0\n"))
    b = read(stored(tmp_path / "b.csv", b"prediction\n1\n0\n"))
    one, other = matching.align([a, b])[0]
    assert one.ids.to_pylist() == other.ids.to_pylist() == ["1", "2"]
    c = read(stored(tmp_path / "c.csv", b"prediction\n1\n0\n0\n"))
    with pytest.raises(UsageError, match=r"c\.csv: 3 rows, but .*a\.csv has 2"):
        matching.align([a, c])
    d = read(stored(tmp_path / "d.csv", b"id,prediction\n1,1\n2,0\n"))
    with pytest.raises(UsageError, match=r"a\.csv: no column 'id', which .*d\.csv has"):
        matching.align([d, a])
