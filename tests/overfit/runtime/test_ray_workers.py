"""A Ray cluster of two nodes: one is lost half-way, and the store comes out as without Ray."""

import numpy as np
import pytest
import torch
from support import ONE_THREAD, SMALL, ellipsoid

from overfit import BadInput, Store, overfit
from overfit.runtime.ray_workers import check_ray


@pytest.fixture
def nodes():
    cluster_utils = pytest.importorskip("ray.cluster_utils", reason="needs the extra `cluster`")
    cluster = cluster_utils.Cluster()
    # The first is the head node, which must live.
    added = [cluster.add_node(num_cpus=1) for _ in range(2)]
    yield cluster, added
    cluster.shutdown()


def test_a_store_made_by_a_cluster_that_loses_a_node_is_the_one_made_without(nodes, tmp_path, monkeypatch):
    (tmp_path / "scans").mkdir()
    for index in range(4):
        radii = np.random.default_rng(index).uniform([60, 90, 70], [90, 130, 100])
        ellipsoid(radii).export(tmp_path / "scans" / f"{index}.ply")
    cluster, (_, other) = nodes
    added = []

    def add_and_lose_a_node(store: Store, *batch) -> None:
        if not added:
            cluster.remove_node(other, allow_graceful=False)
        added.append(batch)
        add(store, *batch)

    add = Store.add
    monkeypatch.setattr(Store, "add", add_and_lose_a_node)
    options = {"machine": ONE_THREAD, "batch_size": 1}
    result = overfit(tmp_path / "scans", tmp_path / "cluster", config=SMALL, ray=cluster.address, **options)
    assert len(result.fitted) == 4 and not result.skipped and len(added) == 4
    monkeypatch.undo()
    overfit(tmp_path / "scans", tmp_path / "alone", config=SMALL, **options)
    one, two = (Store(tmp_path / name).read() for name in ("cluster", "alone"))
    assert one.records == two.records
    assert torch.equal(one.weights, two.weights)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nonsense", "127.0.0.1:99999999"])
def test_a_cluster_that_does_not_answer_is_refused(address):
    pytest.importorskip("ray", reason="needs the extra `cluster`")
    with pytest.raises(BadInput, match=f"^`ray={address}`: no cluster answers; start one by `ray start --head`"):
        check_ray(address)
