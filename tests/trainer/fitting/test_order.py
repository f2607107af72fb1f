from itertools import islice

from convserve_trainer.fitting import order


def test_one_pass_has_every_picture_once_in_another_order_each_epoch() -> None:
    passes = [list(order.epoch_order(10, 3, None, seed=1, epoch=epoch)) for epoch in range(3)]
    assert all(sorted(numbers) == list(range(10)) for numbers in passes)
    assert len({tuple(numbers) for numbers in passes}) == 3


def test_epochs_of_steps_follow_each_other_along_one_stream() -> None:
    epochs = [islice(order.epoch_order(10, 3, 4, seed=1, epoch=epoch), 12) for epoch in range(5)]
    stream = [number for epoch in epochs for number in epoch]
    passes = [stream[start : start + 10] for start in range(0, 60, 10)]
    assert all(sorted(numbers) == list(range(10)) for numbers in passes)
    assert len({tuple(numbers) for numbers in passes}) == 6


def test_steps_times_batch_of_all_pictures_is_one_pass() -> None:
    epoch = list(islice(order.epoch_order(2_000, 20, 100, seed=1, epoch=7), 2_000))
    assert epoch == list(order.epoch_order(2_000, 20, None, seed=1, epoch=7))


def test_order_depends_on_the_seed_alone() -> None:
    assert list(order.epoch_order(10, 1, None, 1, 0)) == list(order.epoch_order(10, 1, None, 1, 0))
    assert list(order.epoch_order(10, 1, None, 1, 0)) != list(order.epoch_order(10, 1, None, 2, 0))


def test_rest_of_an_epoch_is_what_follows_its_first_steps() -> None:
    for steps in (None, 4):
        whole = list(islice(order.epoch_order(10, 3, steps, seed=1, epoch=2), 10))
        for done in range(4):
            rest = islice(
                order.epoch_order(10, 3, steps, seed=1, epoch=2, done=done), 10 - 3 * done
            )
            assert list(rest) == whole[3 * done :]
    assert list(order.epoch_order(10, 3, None, seed=1, epoch=2, done=4)) == []
