"""Milvus: its addresses, and the contract on a real server where one is installed."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vitmae_search.errors import VectorIndexError, VectorStoreUnavailable
from vitmae_search.vectors import open_store

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


def test_an_address_that_is_none_is_not_shown(tmp_path):
    with pytest.raises(VectorIndexError, match="milvus://host:port") as caught:
        open_store("milvus://me:top-secret@127.0.0.1:port", tmp_path)
    assert "top-secret" not in str(caught.value)
