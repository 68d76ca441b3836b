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


def points(folder):
    """{tag: {step: value}}; where a session starts, later steps are forgotten."""
    found = {}
    for event in events(folder):
        if event.session_log.status == SessionLog.START:
            for steps in found.values():
                for step in [step for step in steps if step >= event.step]:
                    del steps[step]
        for value in event.summary.value:
            steps = found.setdefault(value.tag, {})
            assert event.step not in steps, "a point is doubled"
            steps[event.step] = value.simple_value
    return found


def test_every_quantity_of_every_seed_and_epoch(tmp_path):
    epochs = history(seeds=2, epochs=3)
    scalars = Scalars(tmp_path, 0)
    for epoch in epochs:
        scalars.add(epoch)
    assert {path.name for path in (tmp_path / "tensorboard").iterdir()} == {
        "seed-0",
        "seed-1",
    }
    for seed in range(2):
        found = points(tmp_path / "tensorboard" / f"seed-{seed}")
        assert found.keys() == set(epochs[0]._fields) - {"epoch"}
        assert found["norm"] == pytest.approx(
            {epoch.epoch: epoch.norm[seed] for epoch in epochs}
        )
        assert found["learning_rate"] == pytest.approx(
            {epoch.epoch: epoch.learning_rate for epoch in epochs}
        )
        assert list(found["loss"]) == [1, 2, 3]  # not known before training


def test_layers_are_told_by_their_mean(tmp_path):
    measured = layers(SHAPES, 2, 0.2, effective=True)
    Scalars(tmp_path, 0).add_layers(3, measured)
    found = points(tmp_path / "tensorboard" / "seed-1")
    expected = {3: pytest.approx(measured.effective_before[1].mean())}
    assert found["layers/effective_before"] == expected
    assert "layers/names" not in found and "layers/norm" in found


def test_what_is_added_is_on_the_disk_at_once(tmp_path):
    scalars = Scalars(tmp_path, 0)
    for epoch in history(seeds=1, epochs=2):
        scalars.add(epoch)
        steps = points(tmp_path / "tensorboard" / "seed-0")["norm"]
        assert list(steps) == list(range(epoch.epoch + 1))


def test_a_resumed_run_has_one_point_an_epoch(tmp_path):
    first, again = history(seeds=1, epochs=5), history(seeds=1, epochs=7)
    before = Scalars(tmp_path, 0)
    for epoch in first:  # killed after epoch 5, the last checkpoint being of epoch 2
        before.add(epoch)
    after = Scalars(tmp_path, 3)
    for epoch in again[3:]:
        after.add(epoch)
    norms = points(tmp_path / "tensorboard" / "seed-0")["norm"]
    expected = [epoch.norm[0] for epoch in (*first[:3], *again[3:])]
    assert list(norms) == list(range(8))
    np.testing.assert_allclose(list(norms.values()), expected, rtol=1e-6)


def test_scalars_that_cannot_be_written(tmp_path):
    (tmp_path / "tensorboard").write_text("in the way")
    with pytest.raises(OSError, match="tensorboard"):
        Scalars(tmp_path, 0).add(history(seeds=1, epochs=0)[0])
