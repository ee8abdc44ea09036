"""A Ray cluster of two nodes: one is lost in the middle, and the store comes out as without Ray."""

import numpy as np
import pytest
import torch
from conftest import ONE_THREAD, SMALL, ellipsoid

from overfit import BadInput, Store, overfit

cluster_utils = pytest.importorskip("ray.cluster_utils", reason="needs the extra `cluster`")


@pytest.fixture
def nodes():
    cluster = cluster_utils.Cluster()
    # The first is the head, which keeps the books and must live.
    added = [cluster.add_node(num_cpus=1) for _ in range(2)]
    yield cluster, added
    cluster.shutdown()


def test_a_store_made_by_a_cluster_that_loses_a_node_is_the_one_made_without(nodes, tmp_path, monkeypatch):
    (tmp_path / "scans").mkdir()
    for index in range(8):
        radii = np.random.default_rng(index).uniform([60, 90, 70], [90, 130, 100])
        ellipsoid(radii).export(tmp_path / "scans" / f"{index}.ply")
    cluster, (head, other) = nodes
    added = []

    def add_and_lose_a_node(store: Store, *batch) -> None:
        if not added:
            cluster.remove_node(other, allow_graceful=False)
        added.append(batch)
        keep(store, *batch)

    keep = Store.add
    monkeypatch.setattr(Store, "add", add_and_lose_a_node)
    outcome = overfit(tmp_path / "scans", tmp_path / "cluster", SMALL, ONE_THREAD, batch=1, ray=cluster.address)
    assert len(outcome.fitted) == 8 and not outcome.set_aside and len(added) == 8
    monkeypatch.undo()
    overfit(tmp_path / "scans", tmp_path / "alone", SMALL, ONE_THREAD, batch=1)
    one, two = (Store(tmp_path / name).read() for name in ("cluster", "alone"))
    assert one.records == two.records
    assert torch.equal(one.weights, two.weights)


def test_a_cluster_that_is_not_there_is_told(tmp_path, scan_folder):
    with pytest.raises(BadInput, match="--ray 127.0.0.1:1: no cluster answers"):
        overfit(scan_folder, tmp_path / "store", SMALL, ONE_THREAD, ray="127.0.0.1:1")
