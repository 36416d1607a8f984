"""Named seeds: independent of each other, and of what was drawn before."""

from itertools import product

import torch

from lth.training.seeds import generator


def draw(*name: str | int, seed: int = 0) -> list[float]:
    return torch.rand(4, generator=generator(seed, *name)).tolist()


def test_a_name_gives_the_same_numbers_after_any_other_draws() -> None:
    first = draw("order", 3)
    draw("init")
    torch.rand(5)
    assert draw("order", 3) == first


def test_names_and_seeds_do_not_collide() -> None:
    streams = [("order", epoch) for epoch in range(100)]
    states = {
        generator(seed, *stream).initial_seed() for seed, stream in product(range(100), streams)
    }
    assert len(states) == 10_000


def test_parts_of_a_name_do_not_run_together() -> None:
    assert draw("a", 11) != draw("a", 1, 1)
    assert draw("reinit", 1, seed=12) != draw("reinit", 2, seed=11)


def test_seed_zero_is_a_seed() -> None:
    assert draw("init", seed=0) == draw("init", seed=0) != draw("init", seed=1)


def test_the_global_generator_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    draw("init")
    assert torch.equal(before, torch.random.get_rng_state())
