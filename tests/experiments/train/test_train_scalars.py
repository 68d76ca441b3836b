"""TensorBoard scalars: read from the event files as TensorBoard reads them."""

import struct

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from experiments.train.scalars import Scalars
from tests.experiments.report.run_report_case import SHAPES, history, layers


def events(folder):
    """The events of a folder. A record: length, its checksum, an event, its checksum."""
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            yield Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]


def points(folder, seed=0):
    """{tag: {step: value}}; where a session starts, later steps are forgotten."""
    found = {}
    for event in events(folder / "tensorboard" / f"seed-{seed}"):
        if event.session_log.status == SessionLog.START:
            for steps in found.values():
                for step in [step for step in steps if step >= event.step]:
                    del steps[step]
        for value in event.summary.value:
            steps = found.setdefault(value.tag, {})
            assert event.step not in steps, "a point is doubled"
            steps[event.step] = value.simple_value
    return found


def test_every_quantity_of_every_seed_is_on_the_disk_at_once(tmp_path):
    epochs, measured = history(2, 3), layers(SHAPES, 2, 0.2, effective=True)
    scalars = Scalars(tmp_path, 0)
    for epoch in epochs:
        scalars.add(epoch)
        assert list(points(tmp_path)["norm"]) == list(range(epoch.epoch + 1))
    scalars.add_layers(3, measured)
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2
    for seed in range(2):
        found = points(tmp_path, seed)
        of_layers = {f"layers/{name}" for name in set(measured._fields[2:])}
        assert found.keys() == {*epochs[0]._fields, *of_layers} - {"epoch"}
        norms = {epoch.epoch: epoch.norm[seed] for epoch in epochs}
        assert found["norm"] == pytest.approx(norms)
        rates = {epoch.epoch: epoch.learning_rate for epoch in epochs}
        assert found["learning_rate"] == pytest.approx(rates)
        assert list(found["loss"]) == [1, 2, 3]  # not known before training
        effective = {3: pytest.approx(measured.effective_before[seed].mean())}
        assert found["layers/effective_before"] == effective


def test_a_resumed_run_has_one_point_an_epoch(tmp_path):
    first, again = history(seeds=1, epochs=5), history(seeds=1, epochs=7)
    before = Scalars(tmp_path, 0)
    for epoch in first:  # killed after epoch 5, the last checkpoint being of epoch 2
        before.add(epoch)
    after = Scalars(tmp_path, 3)
    for epoch in again[3:]:
        after.add(epoch)
    norms = points(tmp_path)["norm"]
    expected = [epoch.norm[0] for epoch in (*first[:3], *again[3:])]
    assert list(norms) == list(range(8))
    np.testing.assert_allclose(list(norms.values()), expected, rtol=1e-6)
