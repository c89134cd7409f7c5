"""Milvus: its addresses, and the contract on a real server where one is installed."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vitmae_search.errors import VectorIndexError, VectorStoreUnavailable
from vitmae_search.vectors import milvus, open_store

ROOT = Path(__file__).resolve().parents[2]


def can_start_a_server() -> bool:
    if importlib.util.find_spec("milvus") is None or not shutil.which("unshare") or not shutil.which("ip"):
        return False
    return subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode == 0


@pytest.mark.timeout(600)
def test_a_real_server_keeps_the_contract_and_loses_nothing_when_killed(tmp_path):
    if not can_start_a_server():
        pytest.skip("needs the package milvus (a server of 56 MB), and the right to make a network namespace")
    words = ["unshare", "-n", sys.executable, "-m", "tests.helpers.milvus_server", str(tmp_path)]
    ran = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]


def test_a_server_that_is_away_is_a_sentence_without_the_password(source, tmp_path, caplog):
    store = open_store("milvus://me:top-secret@127.0.0.1:1/some", tmp_path)
    with pytest.raises(VectorStoreUnavailable, match=r"milvus://127\.0\.0\.1:1 cannot be used") as caught:
        store.open(source)
    assert not store.save(source)
    assert "their vectors follow later" in caplog.text
    assert "top-secret" not in str(caught.value) + caplog.text


def test_a_large_collection_gets_its_graph_though_a_kill_left_it_without_an_index(
    source, unit, tmp_path, monkeypatch
):
    pymilvus = pytest.importorskip("pymilvus")
    pytest.importorskip("milvus_lite")
    file = tmp_path / "vectors.db"
    store = open_store(f"milvus://{file}", tmp_path)
    queries = unit(3, source.dimension, seed=9)
    assert store.save(source)
    expected = store.open(source).search(queries, 5)
    store.speed_up(source)
    assert "every vector is compared, which is fast" in str(store.describe(source))

    monkeypatch.setattr(milvus, "_COMPARED_BYTES", 1)
    assert "the next `index` builds an HNSW index" in str(store.describe(source))
    store.speed_up(source)
    assert "an HNSW index finds candidates" in str(store.describe(source))

    client = pymilvus.MilvusClient(str(file))
    [collection] = set(client.list_collections()) - {milvus.WATERMARKS}
    client.release_collection(collection)
    client.drop_index(collection, "vector")
    store.close()
    again = open_store(f"milvus://{file}", tmp_path)
    found = again.open(source).search(queries, 5)
    assert [one.ids.tolist() for one in found] == [one.ids.tolist() for one in expected]
    assert "an HNSW index finds candidates" in str(again.describe(source))
    again.close()


def test_an_address_that_is_none_is_not_shown(tmp_path):
    with pytest.raises(VectorIndexError, match="milvus://host:port") as caught:
        open_store("milvus://me:top-secret@127.0.0.1:port", tmp_path)
    assert "top-secret" not in str(caught.value)


def test_an_old_watermark_that_milvus_shows_again_changes_nothing(source, unit, tmp_path):
    pymilvus = pytest.importorskip("pymilvus")
    pytest.importorskip("milvus_lite")
    file = tmp_path / "vectors.db"
    store = open_store(f"milvus://{file}", tmp_path)
    client = pymilvus.MilvusClient(str(file))

    def rows() -> list[dict[str, object]]:
        fields = [*milvus._TEXT_FIELDS, *milvus._INTEGER_FIELDS]
        found = client.query(milvus.WATERMARKS, filter="number >= 0", output_fields=fields)
        return [{**row, "vector": [0.0, 1.0]} for row in found]

    assert store.save(source)
    [old] = rows()
    source.add(unit(2, source.dimension, seed=5))
    assert store.save(source)
    [new] = rows()
    assert new["revision"] == source.revision() > old["revision"]

    client.insert(milvus.WATERMARKS, [old])
    last_in_order = "f" * 33
    dropped = {**new, "entry": last_in_order, "collection": "dropped by the other of two writers"}
    client.insert(milvus.WATERMARKS, [dropped])
    assert store.verify(source)
    assert "up to date with the catalogue" in str(store.describe(source))
    source.add(unit(2, source.dimension, seed=6))
    assert store.save(source)
    assert store.verify(source)
    [newest] = rows()
    assert (newest["collection"], newest["revision"]) == (new["collection"], source.revision())

    store.discard(source)
    assert not rows()
    store.close()
