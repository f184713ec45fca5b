import pytest
from torch.utils.data import DataLoader

from syneg.training.sampling import RowSampler, StreamedSteps

from .conftest import make_dataset


@pytest.mark.parametrize(("size", "world"), [(16, 2), (13, 2), (9, 4), (3, 4)])
def test_union_over_processes_is_the_batch_of_one(size, world):
    parts = [RowSampler(size, 2, seed=1, rank=rank, world_size=world) for rank in range(world)]
    single = RowSampler(size, 2 * world, seed=1)
    assert {len(part) for part in parts} == {len(single)}
    for *shares, whole in zip(*parts, single, strict=True):
        assert sorted(row for share in shares for row in share) == sorted(whole)
    assert sorted(row for batch in single for row in batch) == list(range(size))


def test_order_depends_on_seed_and_epoch():
    sampler = RowSampler(20, 4, seed=1)
    first = list(sampler)
    assert first == list(sampler)
    sampler.set_epoch(1)
    assert first != list(sampler)
    assert first != list(RowSampler(20, 4, seed=2))


def test_incomplete_last_step_can_be_left_out():
    assert [len(batch) for batch in RowSampler(10, 4, drop_last=True)] == [4, 4]
    assert [len(batch) for batch in StreamedSteps(range(10), 4, drop_last=True)] == [4, 4]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("shards", [1, 3])
def test_stream_is_dealt_out_whole_whatever_the_workers(workers, shards):
    stream = make_dataset(11).to_iterable_dataset(num_shards=shards)
    expected = [row["query_id"] for row in stream]

    def batches(rank, world, size):
        steps = StreamedSteps(stream, size, rank, world)
        loader = DataLoader(steps, batch_size=None, num_workers=workers, collate_fn=list)
        return [[row["query_id"] for row in batch] for batch in loader]

    assert [row for batch in batches(0, 1, 4) for row in batch] == expected
    parts = [batches(rank, 2, 2) for rank in range(2)]
    assert len(parts[0]) == len(parts[1]) == 3
    for one, other, whole in zip(*parts, batches(0, 1, 4), strict=True):
        assert sorted(one + other) == sorted(whole)
