"""Which rows a step trains: all of them once an epoch, however they are cut into batches."""

from mlx_smolvlm.train.learning.batches import StepPlan

LENGTHS = [(number * 37) % 101 + 1 for number in range(70)]


def test_every_row_is_seen_once_in_an_epoch_and_the_order_changes():
    plan = StepPlan(LENGTHS, 8, seed=3)
    assert plan.steps_per_epoch == 9
    epochs = [[row for step in range(start, start + 9) for row in plan.rows(step)] for start in (0, 9)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(70))] * 2
    assert epochs[0] != epochs[1]
    assert epochs[0] == [row for step in range(9) for row in StepPlan(LENGTHS, 8, seed=3).rows(step)]
    assert epochs[0] != [row for step in range(9) for row in StepPlan(LENGTHS, 8, seed=4).rows(step)]


def test_batches_hold_the_rows_of_their_step_by_length():
    plan = StepPlan(LENGTHS, 8, seed=3)
    for step in range(9):
        rows = sorted(plan.rows(step))
        for max_tokens in (1, 150, 10_000):
            batches = plan.batches(step, max_tokens)
            assert sorted(row for batch in batches for row in batch) == rows
            assert all(len(batch) == 1 or sum(LENGTHS[row] for row in batch) <= max_tokens for batch in batches)
        shares = [plan.batches(step, 150, rank, 3) for rank in range(3)]
        assert sorted(row for share in shares for batch in share for row in batch) == rows


def test_without_shuffling_the_order_is_that_of_the_file():
    plan = StepPlan(LENGTHS, 8, shuffle=False)
    assert [row for step in range(9) for row in plan.rows(step)] == list(range(70))
    assert plan.rows(9) == plan.rows(0)
