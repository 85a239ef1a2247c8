"""`microtome sql`: reads the workspace's tables, whatever its path, and nothing else; writes nothing."""

import hashlib
import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from flows.cli import _explain
from flows.query import _reason, answer
from microtome.errors import InputError
from storage import RunRecord, RunStore, StageKey, StageStore, open_files
from storage.catalogue import connect
from tasks.registry import TABLES
from tests.conftest import clean_environment

SECRET = "the-secret-word"


def gate_rows(values):
    return {
        "gate": [f"gate {value}" for value in values],
        "value": [float(value) for value in values],
        **{name: [None] * len(values) for name in ("low", "high", "limit")},
        "verdict": ["passed"] * len(values),
        "passed": [True] * len(values),
        "note": [""] * len(values),
    }


def save_run(files, name, values, stage="gates"):
    """A run with one stage that wrote the table `gates`."""
    draft = StageStore(files).draft(StageKey(stage, "code", {"values": list(values)}), TABLES)
    draft.table("gates", gate_rows(values))
    artifact = draft.commit(environment={})
    run = RunRecord.start(name, "net", {}).ended("done", stages={stage: {"folder": artifact.folder}})
    RunStore(files).save(run)
    return run


def told(files, runs, query, **options):
    out = io.StringIO()
    answer(files, runs, query, "json", out=out, **options)
    return json.loads(out.getvalue()) if out.getvalue() else None


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a secret file, a canary and a workspace; commands run in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.csv").write_text(f"word\n{SECRET}\n")
    (tmp_path / "secret.json").write_text(json.dumps([{"word": SECRET}]))
    (tmp_path / "canary.txt").write_text("alive")
    duckdb.connect().execute(f"copy (select '{SECRET}' as word) to '{tmp_path}/secret.parquet' (format parquet)")
    return tmp_path


@pytest.fixture
def files(place):
    return open_files("w", place)


@pytest.fixture
def run(files):
    return save_run(files, "one", range(3))


def contents(folder: Path) -> dict[str, str]:
    """Digest of every file below a folder, by name."""
    found = (file for file in folder.rglob("*") if file.is_file())
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in found}


GOOD = {
    "a select": "select count(*) n from gates",
    "from first": "from gates select count(*) n",
    "a comment and a semicolon": "-- how many\nselect count(*) n from gates; -- done",
    "with": "with a as (from gates), b as (from a) select count(*) n from b",
    "recursion": "with recursive r(n) as (select 1 union all select n + 1 from r where n < 3) select max(n) n from r",
    "union": "select count(*) n from gates union select 3",
    "a subquery": "select (select count(*) from gates) n",
    "a window": "select count(*) over () n from gates limit 1",
    "a join": "select count(*) n from gates a join runs b using (run_id)",
    "table functions": "select count(*) n from range(3)",
    "unnest": "select count(*) n from (select unnest([1, 2, 3]))",
    "a lambda": "select list_sum(list_transform([0, 1], lambda x: x + 1))::int n",
    "a pivot": "select count(*) n from (pivot gates on passed in (true) using sum(value) group by gate)",
    "case does not matter": "SELECT COUNT(*) n FROM GATES",
    "the schema of columns": "select count(distinct table_name) n from information_schema.columns"
    " where table_name in ('gates', 'runs', 'units')",
}


@pytest.mark.parametrize("query", GOOD.values(), ids=GOOD.keys())
def test_what_readers_need_works(files, run, query):
    assert told(files, [run], query) == [{"n": 3}]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("show tables", "gates"),
        ("describe gates", "passed"),
        ("summarize gates", "approx_unique"),
        ("explain select * from gates", "physical_plan"),
        ("EXPLAIN ANALYZE from gates", "Total Time"),
        ("select * from (describe gates)", "passed"),
    ],
)
def test_what_describes_works(files, run, query, words):
    assert words in json.dumps(told(files, [run], query))


def test_a_plan_is_drawn_not_put_into_a_table(files, run):
    out = io.StringIO()
    answer(files, [run], "explain select * from gates", "table", out=out)
    assert "explain_key" not in out.getvalue()
    assert len(out.getvalue().splitlines()) > 5


# HERE is the folder with the secret, TABLE a Parquet file of the workspace.
ATTACKS = [
    "select * from read_csv('HERE/secret.csv')",
    "select * from read_csv_auto('HERE/secret.csv')",
    "select * from read_text('HERE/secret.csv')",
    "select * from read_blob('HERE/secret.csv')",
    "select * from read_json('HERE/secret.json')",
    "select * from read_json_auto('HERE/secret.json')",
    "select * from read_ndjson_objects('HERE/secret.json')",
    "select * from read_parquet('HERE/secret.parquet')",
    "select * from parquet_scan('HERE/secret.parquet')",
    "select * from read_duckdb('HERE/secret.db')",
    "select * from system.main.read_text('HERE/secret.csv')",
    "select * from READ_TEXT('HERE/secret.csv')",
    "select * from \"read_text\"('HERE/secret.csv')",
    "select * from read_text(['HERE/secret.csv', 'HERE/secret.json'])",
    "select * from read_text('HERE/s*')",
    "select * from read_text('secret.csv')",
    "select * from read_text('workspace://../secret.csv')",
    "select * from read_text('workspace:///HERE/secret.csv')",
    "select * from read_text('file://HERE/secret.csv')",
    "select * from glob('HERE/*')",
    "select * from sniff_csv('HERE/secret.csv')",
    "select * from parquet_metadata('HERE/secret.parquet')",
    "select * from parquet_kv_metadata('HERE/secret.parquet')",
    "select * from parquet_full_metadata('HERE/secret.parquet')",
    "select * from 'HERE/secret.csv'",
    'select * from "HERE/secret.parquet"',
    "from 'secret.json'",
    "table 'HERE/secret.csv'",
    "describe 'HERE/secret.csv'",
    "summarize 'HERE/secret.csv'",
    "show 'HERE/secret.csv'",
    "select * from gates where exists (from read_text('HERE/secret.csv'))",
    "select (select content from read_text('HERE/secret.csv'))",
    "with x as (from 'HERE/secret.csv') from x",
    "select 1 union all by name select * from 'HERE/secret.csv'",
    "select * from gates, lateral (select * from read_text('HERE/secret.csv'))",
    "select * from query('select * from read_text(''HERE/secret.csv'')')",
    "select * from query_table('HERE/secret.csv')",
    "pivot 'HERE/secret.csv' on word in ('x') using count(*)",
    "explain analyze select * from read_text('HERE/secret.csv')",
    "select getenv('MICROTOME_SECRET')",
    "select * from json_execute_serialized_sql(json_serialize_sql('from ''HERE/secret.csv'''))",
    "copy gates to 'HERE/canary.txt'",
    "copy (select 1) to 'TABLE' (format parquet)",
    "copy (select 1) to 'workspace://gates/0.parquet' (format parquet)",
    "copy runs from 'HERE/secret.csv'",
    "with x as (copy (select 1) to 'HERE/canary.txt') select * from x",
    "with x as (copy (select 1) to 'TABLE' (format parquet)) select * from x",
    "with x as (copy (select 1) to 'workspace://gates/0.parquet' (format parquet)) from x",
    "with x as (with y as (copy (select 1) to 'HERE/new') from y) from x",
    "with x as (insert into runs (name) values ('evil') returning *) select * from x",
    "with x as (delete from runs returning *) select * from x",
    "with x as (update runs set name = 'evil' returning *) select * from x",
    "explain analyze copy (select 1) to 'HERE/canary.txt'",
    "explain analyze with x as (copy (select 1) to 'HERE/canary.txt') select * from x",
    "/* */ explain analyze copy (select 1) to 'HERE/canary.txt'",
    "explain (analyze, format json) copy (select 1) to 'HERE/canary.txt'",
    "select 1; copy (select 1) to 'HERE/canary.txt'",
    "insert into runs (name) values ('evil')",
    "delete from runs",
    "update runs set name = 'evil'",
    "merge into runs using gates on (true) when matched then delete",
    "truncate runs",
    "create table x as select 1",
    "create view gates as select 1",
    "create or replace view gates as select * from read_text('HERE/secret.csv')",
    "create macro f() as table from read_text('HERE/secret.csv')",
    "create secret (type http)",
    "create persistent secret x (type http)",
    "drop view gates",
    "alter view gates rename to x",
    "attach 'HERE/new.db'",
    "attach 'HERE/new.db' as x (read_only)",
    "detach memory",
    "use information_schema",
    "export database 'HERE/new'",
    "import database 'HERE/new'",
    "install httpfs",
    "install 'HERE/x.duckdb_extension'",
    "load httpfs",
    "load 'HERE/x.duckdb_extension'",
    "force install httpfs from 'http://localhost:1'",
    "set enable_external_access = true",
    "set allowed_directories = ['/']",
    "set lock_configuration = false",
    "reset enable_external_access",
    "set temp_directory = 'HERE/new'",
    "set variable files_gates = ['HERE/secret.parquet']",
    "pragma enable_profiling",
    "pragma profiling_output = 'HERE/new'",
    "pragma enable_logging",
    "call enable_logging(storage = 'file', storage_path = 'HERE/new')",
    "select * from enable_logging(storage = 'file', storage_path = 'HERE/new')",
    "checkpoint",
    "vacuum",
    "begin",
    "prepare x as select 1",
    "execute x",
    "pivot gates on passed",
    "from files",
    "from duckdb_settings()",
    "select * from 'http://127.0.0.1:1/x.csv'",
    "select * from read_parquet('s3://bucket/x.parquet')",
    "select * from read_csv('/dev/stdin')",
    "select * from read_blob('/proc/self/environ')",
    "",
    ";",
    "-- nothing",
    "selct 1",
    "select '\udcff'",
    "select " + "(" * 30_000 + "1" + ")" * 30_000,
    "select " + "-" * 2_000_000 + "1",
    "select " + "+ ".join(["1"] * 50_000),
]
FEW = [table for table in TABLES if table.name in ("gates", "units")]
"""All that attacks need: one that holds something, and one of the many that are empty, each of which takes its time."""
REACHING = [attack for attack in ATTACKS[:-4] if attack.strip(";") and not attack.startswith("--")]


def filled(query, place):
    (table,) = (place / "w").rglob("gates.parquet")
    return query.replace("HERE", str(place)).replace("TABLE", str(table))


@pytest.mark.parametrize("query", ATTACKS, ids=[attack[:70] for attack in ATTACKS])
def test_everything_else_is_refused_in_one_sentence(place, files, run, query, monkeypatch):
    monkeypatch.setenv("MICROTOME_SECRET", SECRET)
    monkeypatch.setattr("flows.query.TABLES", FEW)
    before = contents(place)
    with pytest.raises(InputError) as caught:
        told(files, [run], filled(query, place))
    assert SECRET not in str(caught.value)
    assert contents(place) == before


@pytest.mark.parametrize("query", REACHING, ids=[attack[:70] for attack in REACHING])
def test_the_connection_alone_lets_nothing_out_and_nothing_in(place, files, run, query):
    """The second wall, without the look at the parsed query."""
    before = contents(place)
    try:
        found = str(connect(files, [run], FEW).execute(filled(query, place)).fetchall())
    except duckdb.Error as error:
        found = str(error)
    assert SECRET not in found
    assert contents(place) == before


def test_unsafe_permits_it(place, files, run, capsys):
    query = filled("copy (select word from 'HERE/secret.csv') to 'HERE/new.csv'; select 1 n", place)
    assert told(files, [run], query, unsafe=True) == [{"n": 1}]
    assert SECRET in (place / "new.csv").read_text()
    with pytest.raises(InputError, match="cannot be written"):
        told(files, [run], "copy (select 1) to 'workspace://gates/0.parquet' (format parquet)", unsafe=True)


def test_the_help_warns(command):
    assert "WARNING" in command("sql", "--help").stdout


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_no_file_is_opened_but_the_tables(place, files, run):
    """What the process has open while a query reads: of the workspace, one table."""
    connection = connect(files, [run], TABLES)
    pending = connection.execute("select * from gates, range(1000000)")
    pending.fetchone()
    held = {os.readlink(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd") if _exists(number)}
    assert {Path(path).name for path in held if path.startswith(str(place))} <= {"gates.parquet"}


def _exists(number):
    return Path(f"/proc/self/fd/{number}").exists()


ODD = {
    "class": "w[12]",
    "star": "w*",
    "question mark": "w?",
    "braces": "w{1,2}",
    "space": "w 1",
    "quotes": "w'\"`;--",
    "newline": "w\n1",
    "hive": "run_id=evil",
    "percent": "w%20",
    "hash": "w#1",
    "backslash": "w\\1",
    "right to left": "w\u202e1",
    "long": "/".join(["x" * 100] * 3),
    "longest": "x" * 255,
    "dots": "...",
    "protocol": "workspace:",
}


@pytest.mark.parametrize("name", ODD.values(), ids=ODD.keys())
def test_a_workspace_reads_its_own_files_whatever_its_path(tmp_path, name):
    for beside in ("w1", "w2"):
        save_run(open_files(beside, tmp_path), "beside", [7])
    files = open_files(name, tmp_path)
    mine = save_run(files, "mine", [1, 2])
    assert told(files, [mine], "select run_id, value from gates order by value") == [
        {"run_id": mine.run_id, "value": 1.0},
        {"run_id": mine.run_id, "value": 2.0},
    ]


def test_two_workspaces_in_one_process_do_not_share_a_shelf(tmp_path):
    one, two = open_files("a", tmp_path), open_files("b", tmp_path)
    first, second = save_run(one, "one", [1]), save_run(two, "two", [2])
    kept = connect(one, [first], TABLES)
    assert connect(two, [second], TABLES).execute("select value from gates").fetchall() == [(2.0,)]
    assert kept.execute("select value from gates").fetchall() == [(1.0,)]


def test_threads_share_a_file_without_reading_each_others_bytes(tmp_path):
    """Two threads of DuckDB seek and read on one handle: with one position for both, this fails within a few rounds."""
    files = open_files(str(tmp_path))
    rng = np.random.default_rng(0)
    rows = 600_000
    units = np.arange(rows) % 500
    values = rng.integers(0, 1 << 30, rows)
    draft = StageStore(files).draft(StageKey("tally", "code"), TABLES)
    draft.table("activated", {"layer": ["l"] * rows, "image": units, "unit": units, "pixels": pa.array(values)})
    artifact = draft.commit(environment={})
    run = RunRecord.start("x", "net", {}).ended("done", stages={"tally": {"folder": artifact.folder}})
    expected = [(int(unit), int(values[units == unit].sum())) for unit in range(500)]
    for _ in range(10):
        connection = connect(files, [run], TABLES)
        got = connection.execute("select unit, sum(pixels)::bigint from activated group by unit order by unit")
        assert got.fetchall() == expected


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.unlink(), "gates.parquet is missing"),
        (lambda path: path.write_bytes(b"x"), "has 1 bytes instead of"),
        (lambda path: (path.parent / "manifest.json").write_text("{"), "is not there any more"),
        (lambda path: (path.parent / "manifest.json").unlink(), "is not there any more"),
    ],
)
def test_a_damaged_stage_is_named_and_the_others_answer(place, files, run, capsys, damage, words):
    other = save_run(files, "two", [9])
    (table,) = Path(files.location(run.stages["gates"]["folder"])).glob("*.parquet")
    damage(table)
    assert told(files, [run, other], "select value from gates") == [{"value": 9.0}]
    said = capsys.readouterr().err
    assert said.startswith(f"warning: run {run.run_id}: stage gates is damaged: ")
    assert words in said
    assert "its rows are missing" in said
    assert len(said.splitlines()) == 1


def test_a_file_that_goes_while_it_is_read_is_one_sentence(files, run):
    connection = connect(files, [run], TABLES)
    (table,) = Path(files.location(run.stages["gates"]["folder"])).glob("*.parquet")
    table.unlink()
    with pytest.raises(duckdb.Error) as caught:
        connection.sql("select value from gates").fetchall()
    assert _reason(caught.value).startswith("FileNotFoundError: ")
    assert len(_reason(caught.value).splitlines()) == 1


def test_parquet_to_a_terminal_is_refused(place, files, run, tmp_path):
    master, slave = pty.openpty()
    process = subprocess.run(
        [sys.executable, "-m", "flows.cli", "sql", "from gates", "--format", "parquet", "--workspace", "w"],
        cwd=place, stdout=slave, stderr=subprocess.PIPE, text=True, env=clean_environment(tmp_path), check=False,
    )  # fmt: skip
    os.close(slave)
    os.close(master)
    assert process.returncode == 2
    assert process.stderr == "error: --format parquet: must go to a file, got a terminal; append: > rows.parquet\n"


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_ctrl_c_ends_a_long_query(place, files, run, tmp_path):
    query = "select sum(a.range * b.range) from range(10000000) a, range(10000000) b"
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "sql", query, "--workspace", "w"],
        cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean_environment(tmp_path),
        # a shell's background job ignores Ctrl-C, and so does all that it starts
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    end = time.monotonic() + 60
    while "duckdb" not in Path(f"/proc/{process.pid}/maps").read_text() and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.1)
    process.kill()
    said = process.communicate()[1]
    assert process.returncode == 130, said


@pytest.mark.parametrize(
    "query",
    [
        "select date '290000-01-01' d",
        "select 'infinity'::timestamp t",
        "select interval 1 month i",
        "select map {'a': 1} m",
        "select 170141183460469231731687303715884105727::hugeint h",
        "select 'a'::blob b",
        "select '1'::bit b",
        "select uuid() u",
        "select null n",
        "select union_value(a := 1) u",
        "select time '10:00' t",
        "select 1 where false",
        "select 'nan'::double d",
    ],
)
@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_every_type_is_shown_or_refused_in_one_sentence(files, run, query, form):
    try:
        answer(files, [run], query, form, out=io.StringIO())
        said = ""
    except InputError as error:
        said = str(error)
    assert not said or "cast it to varchar" in said


def test_names_do_not_steer_the_terminal(files, run):
    out = io.StringIO()
    answer(files, [run], "select 'a' || chr(27) || '[31m' || chr(10) || chr(8238) || 'é' evil", "table", out=out)
    assert out.getvalue().splitlines()[2] == "a\\x1b[31m\\n\\u202eé"


def test_a_ctrl_c_that_duckdb_words_as_an_error_of_its_own_ends_as_one(capsys):
    """As it comes out of a query in the main thread, such as those that open the tables; seen when it is timed so."""
    assert _explain(RuntimeError("Query interrupted")) == 130
    assert capsys.readouterr().err == "stopped; everything finished is kept\n"
    assert _explain(RuntimeError("another")) == 3
