"""Workspaces, and data sets, in an object store: against real servers on the loopback."""

import contextlib
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import storage.leases
from flows.collect import collect
from flows.plan import Plan, Request
from microtome.errors import InputError
from storage import RunStore, StageKey, StageStore, open_files
from storage.brought import brought
from storage.bucket import Bucket
from storage.claims import Claims
from storage.files import CHECKS, Altered, Files
from storage.providers import connection_settings
from storage.stages import MANIFEST
from tests.commands import status
from tests.conftest import change_audit, clean_environment, contents, count, soak
from tests.stores import ACCOUNT, AZURE_SECRET, KEY, SECRET, Store, azure_store, moto_store, rclone_store, use
from tests.test_readonly import audited

STAGE = StageKey("probe", "code", {"x": 1})


STORES = {"rclone": rclone_store, "moto": moto_store, "azure": azure_store}
every_store = pytest.mark.parametrize("store", ["rclone", "azure"], indirect=True)
"""For a test of what a workspace needs of a store: each of those that know who may come in."""


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[Callable[[str], Store]]:
    """The servers of these tests, each started when it is first asked for."""
    with contextlib.ExitStack() as stack:

        @functools.cache
        def started(name: str) -> Store:
            return stack.enter_context(contextlib.contextmanager(STORES[name])(tmp_path_factory.mktemp(name)))

        yield started


@pytest.fixture
def store(running, request) -> Store:
    return running(getattr(request, "param", "rclone"))


@pytest.fixture
def machine(monkeypatch, tmp_path) -> Callable[[str], None]:
    """Be one machine or another: each has a cache of its own."""

    def be(name: str) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"machine-{name}"))

    be("first")
    return be


@pytest.fixture
def place(store, monkeypatch, tmp_path, machine, request) -> str:
    """An address that nothing lies at yet."""
    use(monkeypatch, store)
    monkeypatch.setenv("HOME", str(tmp_path))
    return f"{store.address}/{request.node.name.partition('[')[0]}"


def objects(place: str) -> dict[str, bytes]:
    bucket = Bucket(place)
    return {name: bucket.get(name) for name in bucket.list("")}


def finish(files: Files, text: str = "content") -> str:
    draft = StageStore(files).draft(STAGE, ())
    draft.write("first", text.encode())
    draft.write("folder.of/second", b"2" * 100_000)
    return draft.commit(environment={}).folder


@every_store
def test_a_stage_goes_there_and_comes_back_on_another_machine(place, machine):
    folder = finish(open_files(place))
    kept = objects(place)
    assert set(kept) == {f"{folder}/{name}" for name in ("first", "folder.of/second", "manifest.json")}
    machine("second")
    files = open_files(place)
    found = StageStore(files).find(STAGE)
    assert not files.here(f"{folder}/first")
    assert found.read("first") == b"content"
    assert files.here(f"{folder}/first")
    assert not files.here(f"{folder}/folder.of/second")
    assert (Path(found.bring()) / "folder.of/second").read_bytes() == kept[f"{folder}/folder.of/second"]


def test_the_manifest_goes_last_and_only_when_all_is_there(place, monkeypatch):
    files, sent = open_files(place), []
    for name in ("put", "put_once", "send"):
        kept = getattr(Bucket, name)

        def told(self, *given, kept=kept):
            kept(self, *given)
            sent.append(next(str(item) for item in given if str(item).startswith("stages/")))

        monkeypatch.setattr(Bucket, name, told)
    finish(files)
    lasting = [name for name in sent if not name.endswith(".check.json")]  # those go when the manifest is there
    assert (len(sent), len(lasting)) == (5, 3)  # two files, a checksum beside each, the manifest
    assert lasting[-1].endswith("manifest.json")


@pytest.mark.parametrize("store", ["moto", "azure"], indirect=True)
def test_a_second_manifest_changes_nothing_where_the_store_has_conditional_puts(place, machine):
    bucket = Bucket(f"{place}/once")
    bucket.put_once("a", b"1")
    bucket.put_once("a", b"2")
    assert bucket.get("a") == b"1"
    place = f"{place}/whole"
    folder = finish(open_files(place))
    machine("second")
    files = open_files(place)
    assert StageStore(files).find(STAGE).read("first") == b"content"
    assert StageStore(files).verify(folder) == []
    StageStore(files).discard(STAGE)
    assert files.names("stages") == []


@every_store
def test_what_was_altered_in_the_store_is_seen_when_it_is_brought_and_made_again(place, machine):
    Bucket(place).put(f"{finish(open_files(place))}/first", b"CONTENT")
    machine("second")
    files = open_files(place)
    found = StageStore(files).find(STAGE)
    with pytest.raises(Altered, match=rf"first was altered in {place}; the stage runs again"):
        found.read("first")
    assert StageStore(files).find(STAGE) is None
    finish(files)
    machine("third")
    assert StageStore(open_files(place)).find(STAGE).read("first") == b"content"


def test_a_copy_that_was_damaged_is_dropped_not_the_stage(place):
    files = open_files(place)
    folder = finish(files)
    Path(files.location(f"{folder}/first")).write_bytes(b"CONTENT")
    assert StageStore(files).damaged(STAGE)
    assert StageStore(files).find(STAGE).read("first") == b"content"


def test_a_copy_of_a_stage_that_was_made_otherwise_elsewhere_is_brought_again(place, machine):
    finish(open_files(place), "content")
    machine("second")
    files = open_files(place)
    StageStore(files).discard(STAGE)
    finish(files, "CONTENT")
    machine("first")
    assert StageStore(open_files(place)).find(STAGE).read("first") == b"CONTENT"


@every_store
def test_an_object_that_is_gone_or_short_makes_the_stage_again(place, machine):
    bucket = Bucket(place)
    for number, change in enumerate((lambda name: bucket.delete([name]), lambda name: bucket.put(name, b"s"))):
        change(f"{finish(open_files(place))}/first")
        machine(f"after-{number}")
        heard = []
        assert StageStore(open_files(place), heard.append).find(STAGE) is None
        assert "the stage runs again" in heard[0]


WHOLE = [bytes([number]) * 400_000 for number in range(20)]
HALF = """
import sys
from storage import StageStore, StageKey, open_files
draft = StageStore(open_files(sys.argv[1])).draft(StageKey("probe", "code", {"x": 2}), ())
for number in range(20):
    draft.write(f"part-{number:02d}", bytes([number]) * 400_000)
    print(number, flush=True)
draft.commit(environment={})
print("done", flush=True)
"""


@every_store
@pytest.mark.soak
def test_killed_in_mid_upload_nothing_is_taken_for_finished(place, machine, tmp_path):
    key = StageKey("probe", "code", {"x": 2})
    sent: list[str] = []
    for kill in range(soak(3, 40)):
        after, environment = (3 + 7 * kill) % 19, clean_environment(tmp_path)
        with subprocess.Popen([sys.executable, "-c", HALF, place], stdout=subprocess.PIPE, env=environment) as process:
            for _ in range(after):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
        machine("second")
        found = StageStore(open_files(place)).find(key)
        if found is None:
            count("kills in mid-upload")
            sent += [name for name in objects(place) if "part-" in name]
        else:  # the kill came too late
            assert [found.read(name) for name in found.names()] == WHOLE
            StageStore(open_files(place)).discard(key)
        machine("first")
    assert sent, "some of what was killed lies there"
    done = subprocess.run([sys.executable, "-c", HALF, place], env=clean_environment(tmp_path), capture_output=True)
    assert done.stdout.endswith(b"done\n"), done.stderr
    machine("second")
    found = StageStore(open_files(place)).find(key)
    assert [found.read(name) for name in found.names()] == WHOLE
    assert [name for name in objects(place) if "check" in name] == []


@every_store
def test_what_is_there_is_removed_though_something_else_is_not(place):
    bucket = Bucket(place)
    for name in ("a", "b/c"):
        bucket.put(name, b"1")
    bucket.delete(["missing", "a", "b/missing", "b/c"])
    bucket.delete([])
    assert objects(place) == {}


@every_store
def test_a_removal_that_nobody_answers_is_asked_for_again(place, monkeypatch):
    """As where a server drops the connection under load: removing twice is removing once."""
    from obstore.exceptions import GenericError

    bucket = Bucket(place)
    bucket.put("a", b"1")
    store, asked = bucket._store, []

    class Dropping:
        def delete(self, names):
            asked.append(names)
            if len(asked) == 1:
                raise GenericError("error sending request")
            store.delete(names)

    monkeypatch.setattr(bucket, "_store", Dropping())
    if bucket._provider.removes_many:
        bucket.delete(["a"])
        assert (asked, objects(place)) == ([["a"]] * 2, {})


@every_store
def test_what_one_machine_began_another_takes_up(place, machine):
    draft = StageStore(open_files(place)).draft(STAGE, ())
    draft.write("first", b"content")
    draft._files.settle([f"{STAGE.folder}/first", f"{STAGE.folder}/first.check.json"])
    machine("second")
    taken = StageStore(open_files(place)).draft(STAGE, ())
    assert taken.has("first")
    taken.commit(environment={})
    assert StageStore(open_files(place)).find(STAGE).read("first") == b"content"


def test_the_checksum_beside_a_file_is_there_when_the_file_is_settled(place, monkeypatch):
    """Or a worker's could come there after the coordinator, on another machine, has removed them all."""
    send = Bucket.send

    def late(self, path: Path, name: str) -> None:
        time.sleep(0.5 * name.endswith(CHECKS))
        send(self, path, name)

    monkeypatch.setattr(Bucket, "send", late)
    files = open_files(place)
    StageStore(files).part(STAGE, ()).write("first", b"content")
    files.settle([f"{STAGE.folder}/first"])
    assert set(objects(place)) == {f"{STAGE.folder}/first", f"{STAGE.folder}/first{CHECKS}"}


@every_store
def test_a_lock_is_one_machines_at_a_time(place, machine, monkeypatch):
    monkeypatch.setattr(storage.leases, "_PAUSE", (0.01, 0.2))
    machines = []
    for name in ("a", "b", "c"):
        machine(name)
        machines.append(open_files(place))
    bucket, faults, times = Bucket(place), [], soak(4, 60)
    bucket.put("number", b"0")

    def add(files: Files) -> None:
        for _ in range(times):
            with files.lock("claims/lock", lambda: None):
                number = int(bucket.get("number"))
                time.sleep(0.005)
                bucket.put("number", str(number + 1).encode())

    threads = [threading.Thread(target=add, args=(files,)) for files in machines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert bucket.get("number") == str(3 * times).encode()
    assert [name for name in bucket.list("claims") if name.endswith(".ticket")] == []


@every_store
def test_a_dead_machines_lock_runs_out_and_a_dead_process_of_this_one_holds_nothing(place, machine, monkeypatch):
    monkeypatch.setattr(storage.leases, "LEASE", 2.0)
    files, bucket = open_files(place), Bucket(place)
    with files.lock("claims/lock", lambda: None):
        pass
    bucket.put(f"claims/lock.{files._machine}.dead.ticket", b"")
    began = time.monotonic()
    with files.lock("claims/lock", lambda: None):
        assert time.monotonic() - began < 1
    bucket.put("claims/lock.elsewhere.dead.ticket", b"")
    waited = []
    with files.lock("claims/lock", lambda: waited.append(1)):
        assert waited
    assert not bucket.list("claims")


@every_store
def test_a_collection_leaves_what_another_machine_claims(place, machine):
    first = open_files(place)
    folder = finish(first)
    machine("second")
    second = open_files(place)
    with Claims(first).held([folder]) as fault:
        assert fault is None
        assert collect(second, 1, dry_run=False, waiting=lambda: None) == []
    ((gone, size),) = collect(second, 1, dry_run=False, waiting=lambda: None)
    assert (gone, size > 100_000) == (folder, True)
    assert second.names("") == []
    assert collect(first, 1, dry_run=False, waiting=lambda: None)[0][0] == folder  # this machine's copies
    assert not first.here(f"{folder}/first")


@pytest.fixture
def both(place, audit_file, tmp_path) -> tuple[Path, Path]:
    """An audit with its workspace in a folder, and the same with an object store."""
    other = tmp_path / "remote.yaml"
    shutil.copy(audit_file, other)
    change_audit(other, workspace=place)
    return audit_file, other


@every_store
def test_an_audit_there_and_here_and_on_a_second_machine(both, place, machine, store, capsys):
    local, remote = both
    ours, theirs = audited(local), audited(remote)
    here, there = open_files(str(local.parent / ".microtome")), open_files(place)
    for job, stage in ours.stages.items():
        assert theirs.stages[job]["folder"] == stage["folder"]
        pair = [contents(StageStore(files).load(stage["folder"])) for files in (here, there)]
        assert pair[0] == pair[1]
    machine("second")
    ended, out, said = status("audit", str(remote))
    assert (ended, said.count("cached")) == (0, len(ours.stages)), said
    page = Path(next(line.split()[1] for line in out.splitlines() if line.startswith("report")))
    assert page.is_relative_to(os.environ["XDG_CACHE_HOME"])
    assert page.is_file()
    files = open_files(place)
    big = theirs.stages["activations"]["folder"]
    assert not any(files.here(name) for name in files.names(big)), "nobody read the maps"
    asked = status("sql", "select count(*) as units from units", "--format", "csv", "--workspace", place)
    assert asked == (0, "units\n12\n", "")
    for command in (
        ["open"],
        ["show"],
        ["history", "tiny"],
        ["compare", "tiny", "tiny"],
        ["runs"],
        ["plan", str(remote)],
    ):
        where = [] if command[0] == "plan" else ["--workspace", place]
        assert status(*command, *where)[0] == 0, command
    assert status("verify", "--workspace", place)[0] == 0
    single = remote.parent / "whole.html"
    assert status("report", "--single-file", str(single), "--workspace", place)[0] == 0
    assert single.stat().st_size > 50_000
    assert status("gc", "--keep", "1", "--workspace", place)[0] == 0
    everything = [*objects(place).items(), *((str(f), f.read_bytes()) for f in cached_files())]
    assert len(everything) > 100
    told = capsys.readouterr()
    assert store.secrets
    for secret in store.secrets:
        assert not [name for name, content in everything if secret.encode() in content]
        assert secret not in told.out + told.err + said + out


def cached_files() -> list[Path]:
    folder = Path(os.environ["XDG_CACHE_HOME"]).parent
    return [file for cache in folder.glob("machine-*") for file in cache.rglob("*") if file.is_file()]


def refused(audit_file: Path, workspace: str) -> str:
    """The one sentence with which a workspace is refused, within some ten seconds."""
    change_audit(audit_file, workspace=workspace)
    began = time.monotonic()
    with pytest.raises(InputError) as caught:
        Plan(Request(audit_file))
    assert time.monotonic() - began < 15
    (fault,) = caught.value.faults
    assert fault.startswith("workspace: ")
    assert not [word for word in ("hidden", "Generic", "\n", SECRET, AZURE_SECRET) if word in fault]
    return fault


@pytest.mark.parametrize("store", ["azure"], indirect=True)
def test_azures_users_say_who_they_are_in_several_ways(place, store, monkeypatch, audit_file):
    endpoint = store.environment["AZURE_STORAGE_ENDPOINT"]
    connection = f"AccountName={ACCOUNT};AccountKey={AZURE_SECRET};BlobEndpoint={endpoint}"
    for said in ({"CONNECTION_STRING": connection}, {"ACCOUNT": ACCOUNT, "KEY": AZURE_SECRET, "ENDPOINT": endpoint}):
        use(monkeypatch, replace(store, environment={f"AZURE_STORAGE_{name}": value for name, value in said.items()}))
        Bucket(place).check()
    wrong = connection.replace(AZURE_SECRET, store.wrong["AZURE_STORAGE_ACCOUNT_KEY"])
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", wrong)  # counts before the others
    assert "access was denied" in refused(audit_file, place)


def test_where_an_account_of_azure_is_by_its_connection_string():
    said = "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=k==;EndpointSuffix=core.chinacloudapi.cn"
    found = {"account_name": "a", "account_key": "k==", "endpoint": "https://a.blob.core.chinacloudapi.cn"}
    assert connection_settings(said) == found
    assert connection_settings("") == {}


def test_containers_of_one_name_in_two_accounts_have_two_folders_of_copies(monkeypatch):
    digests = set()
    for account in ("a", "b"):
        use(monkeypatch, Store("az", {"AZURE_STORAGE_ACCOUNT_NAME": account}, None, {}))
        digests.add(Bucket("az://kept/x").digest)
    assert len(digests) == 2


@every_store
def test_what_is_wrong_is_one_sentence_before_any_work(audit_file, place, store, monkeypatch):
    what = {"s3": "bucket", "gs": "bucket", "az": "container"}[store.scheme]
    assert f"there is no such {what}" in refused(audit_file, f"{store.scheme}://nosuch{what}/x")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        for port in (9, silent.getsockname()[1]):  # nobody's, and one that never answers
            nobody = f"http://127.0.0.1:{port}"
            with monkeypatch.context() as patch:
                patch.setenv(store.endpoint, nobody)
                assert f"does not answer at {nobody}" in refused(audit_file, place)
    for name, value in store.wrong.items():
        monkeypatch.setenv(name, value)
        assert "access was denied" in refused(audit_file, place)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("s3://user:hidden@bucket/x", "must hold no credentials"),
        ("ftp://bucket/x", "must be one of s3://, gs://, az://, got 'ftp'://"),
        ("s3://", "must be s3://bucket/prefix"),
        ("az://", "must be az://container/prefix"),
    ],
)
def test_what_is_no_address_is_refused(audit_file, address, why):
    assert why in refused(audit_file, address)


def test_a_store_that_is_away_for_a_while_is_waited_for(tmp_path, monkeypatch, machine):
    serving = rclone_store(tmp_path / "store")  # kept, since it ends when nobody has it any more
    store = next(serving)
    use(monkeypatch, store)
    files = open_files(f"{store.address}/away")
    folder = finish(files)
    store.process.kill()
    store.process.wait()
    again: list[subprocess.Popen] = []
    threading.Timer(1.5, lambda: again.append(subprocess.Popen(store.process.args))).start()
    assert StageStore(files).load(folder).read("first") == b"content"
    again[0].kill()
    again[0].wait()


NOBODY = "http://127.0.0.1:9"
LACKING = {
    "s3://b/x": (
        {"AWS_ENDPOINT_URL": NOBODY, "AWS_METADATA_ENDPOINT": NOBODY},
        "no credentials; set AWS_ACCESS_KEY_ID",
    ),
    "az://b/x": ({}, "no storage account; set AZURE_STORAGE_ACCOUNT_NAME"),
    "az://b/y": (
        {"AZURE_STORAGE_ACCOUNT": "a", "AZURE_MSI_ENDPOINT": f"{NOBODY}/token"},
        "no credentials; set AZURE_STORAGE_ACCOUNT_KEY",
    ),
    "az://b/z": ({"AZURE_STORAGE_CONNECTION_STRING": "AccountName=a;AccountKey=hidden!"}, "key must be in base64"),
    "gs://b/x": ({"GCE_METADATA_HOST": "127.0.0.1:9"}, "no credentials; set GOOGLE_APPLICATION_CREDENTIALS"),
    "gs://b/y": ({"GOOGLE_APPLICATION_CREDENTIALS": "nowhere.json"}, "credentials that the environment names cannot"),
    "gs://b/z": ({"GOOGLE_APPLICATION_CREDENTIALS": "hidden.json"}, "credentials that the environment names cannot"),
}


@pytest.mark.parametrize("address", LACKING)
def test_without_credentials_it_says_so(audit_file, address, monkeypatch, tmp_path):
    environment, why = LACKING[address]
    (tmp_path / "hidden.json").write_text('{"type": "service_account", "client_email": "a", "private_key": "hidden"}')
    monkeypatch.chdir(tmp_path)
    use(monkeypatch, Store("", environment, None, {}))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert why in refused(audit_file, address)


def test_a_profile_is_read_where_boto3_is_there(place, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_text(f"[default]\naws_access_key_id={KEY}\naws_secret_access_key={SECRET}\n")
    Bucket(place).check()


def test_a_data_set_there_is_the_same_as_in_a_folder(audit_file, broden, place):
    bucket = Bucket(place)
    for file in filter(Path.is_file, broden.rglob("*")):
        bucket.send(file, file.relative_to(broden).as_posix())
    there = Plan(Request(audit_file, overrides=(f"dataset.root={place}",)))
    planned = [{job.name: job.key.digest for job in plan.jobs} for plan in (Plan(Request(audit_file)), there)]
    assert {name for name in planned[0] if planned[0][name] != planned[1][name]} == {"pages", "report"}  # which name it
    heard = []
    folder = brought(place, heard.append)
    assert not heard, "nothing is fetched twice"
    changed = next(file.relative_to(folder).as_posix() for file in folder.rglob("*.csv"))
    original = bucket.get(changed)
    bucket.put(changed, original + b"\n")
    next(folder.rglob("*.jpg")).write_bytes(b"altered here")
    (folder / "more.txt").write_text("more")
    brought(place, heard.append)
    assert "fetching 2 files" in heard[0]
    assert not (folder / "more.txt").exists()
    assert (folder / changed).read_bytes() == original + b"\n"
    with pytest.raises(InputError, match=r"dataset.root: nothing lies at s3://kept/nothing"):
        assert Plan(Request(audit_file, overrides=("dataset.root=s3://kept/nothing",))).jobs


BLOCKS = {
    "s3": """
class AwsCredentials(Block):
    _block_type_slug = "aws-credentials"
    aws_access_key_id: str
    aws_secret_access_key: SecretStr
    region_name: str
    aws_client_parameters: dict[str, Any]
class S3Bucket(Block):  # with the fields of prefect-aws's
    _block_type_slug = "s3-bucket"
    bucket_name: str
    credentials: AwsCredentials
    bucket_folder: str
keys = AwsCredentials(aws_access_key_id=said["AWS_ACCESS_KEY_ID"], aws_secret_access_key=said["AWS_SECRET_ACCESS_KEY"],
                      region_name="us-east-1", aws_client_parameters={"endpoint_url": said["AWS_ENDPOINT_URL"]})
keys.save("keys")
S3Bucket(bucket_name="kept", credentials=keys, bucket_folder="blocks").save("results")
settings = {"key": said["AWS_ACCESS_KEY_ID"], "secret": said["AWS_SECRET_ACCESS_KEY"],
            "client_kwargs": {"endpoint_url": said["AWS_ENDPOINT_URL"]}}
""",
    "az": """
class AzureBlobStorageCredentials(Block):
    _block_type_slug = "azure-blob-storage-credentials"
    connection_string: SecretStr
class AzureBlobStorageContainer(Block):  # with the fields of prefect-azure's
    _block_type_slug = "azure-blob-storage-container"
    container_name: str
    credentials: AzureBlobStorageCredentials
    base_folder: str
settings = {"connection_string": ";".join((f"AccountName={said['AZURE_STORAGE_ACCOUNT_NAME']}",
            f"AccountKey={said['AZURE_STORAGE_ACCOUNT_KEY']}", f"BlobEndpoint={said['AZURE_STORAGE_ENDPOINT']}"))}
keys = AzureBlobStorageCredentials(**settings)
keys.save("azure-keys")
AzureBlobStorageContainer(container_name="kept", credentials=keys, base_folder="blocks").save("results")
""",
}
SAVED = """
import json, sys
from typing import Any
from prefect.blocks.core import Block
from prefect.filesystems import LocalFileSystem, RemoteFileSystem
from pydantic import SecretStr
scheme, folder, said = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
BLOCKS
RemoteFileSystem(basepath=f"{scheme}://kept/blocks", settings=settings).save(f"remote-{scheme}")
RemoteFileSystem(basepath="gs://kept/blocks", settings=settings).save("remote-gs", overwrite=True)
LocalFileSystem(basepath=folder).save("local", overwrite=True)
"""


@every_store
def test_prefects_blocks_name_a_workspace(server, store, place, tmp_path):
    """In processes of their own: Prefect reads its settings once."""
    own = server | {"XDG_CACHE_HOME": str(tmp_path / "machine-first")}
    environment = {name: value for name, value in own.items() if name not in store.environment}
    given = [store.scheme, str(tmp_path / "folder")]
    called = f"from tests.test_objects import named_by_blocks; named_by_blocks(*{given})"
    saved = [SAVED.replace("BLOCKS", BLOCKS[store.scheme]), *given, json.dumps(store.environment)]
    for call in (saved, [called]):
        ended = subprocess.run(
            [sys.executable, "-c", *call],
            env=environment,
            cwd=Path(__file__).parent.parent,
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 0, ended.stderr


def named_by_blocks(scheme: str, folder: str) -> None:
    """What the test above looks at."""
    from flows.workspaces import open_workspace

    kind = {"s3": "s3-bucket", "az": "azure-blob-storage-container"}[scheme]
    finish(open_workspace(f"block://{kind}/results"))
    found = StageStore(open_workspace(f"block://remote-file-system/remote-{scheme}")).find(STAGE)
    assert found.read("first") == b"content"
    assert open_workspace("block://local-file-system/local").address == folder
    for wrong, why in (
        (f"{kind}/none", "has no block"),
        ("slack/x", "says no place"),
        ("x", "block://TYPE/NAME"),
        ("remote-file-system/remote-gs", "must be at s3:// or az://, got gs://"),
    ):
        with pytest.raises(InputError, match=why):
            open_workspace(f"block://{wrong}")


def test_the_command_line_with_prefect_there(both, place, server, store, machine, tmp_path):
    environment = server | store.environment | {"XDG_CACHE_HOME": str(tmp_path / "machine-first")}
    call = [sys.executable, "-m", "flows.cli", "audit", str(both[1])]
    ended = subprocess.run(call, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert SECRET not in ended.stdout + ended.stderr
    (run,) = RunStore(open_files(place)).all()
    assert run.status == "done"
    assert MANIFEST.parse(open_files(place).read(f"{run.stages['report']['folder']}/manifest.json"))
