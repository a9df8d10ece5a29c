"""The systematic draw: spread by size, reproducible, and with the inclusion probabilities that its weights assume."""

from collections import Counter

import numpy as np
import pytest

from catalog.statistics.input_draw import DrawnInput, Pool, PoolInput, SystematicDesign


def pool_of(count: int, *, equal: bool = False) -> Pool:
    rng = np.random.default_rng(5)
    sizes = np.full(count, 900) if equal else rng.lognormal(9, 0.8, count).astype(int)
    return Pool([PoolInput(f"{index:04d}", int(size)) for index, size in enumerate(sizes)])


def ids(drawn: tuple[DrawnInput, ...], stratum: str) -> list[str]:
    return [entry.id for entry in drawn if entry.stratum == stratum]


def test_each_round_is_spread_by_size() -> None:
    pool, design = pool_of(2000), SystematicDesign(10)
    position = {entry.id: index for index, entry in enumerate(design.strata(pool)["body"])}
    for number in range(1, 20):
        positions = sorted(
            position[name] for name in ids(design.draw(pool, subject="net", round_number=number), "body")
        )
        # One input from every tenth of the sorted body.
        assert [10 * value // len(position) for value in positions] == list(range(10))


@pytest.mark.parametrize("count", [31, 47, 100, 2000])
@pytest.mark.parametrize("tail", [False, True])
def test_no_round_repeats_an_input_and_its_size_is_known(count: int, tail: bool) -> None:
    pool, design = pool_of(count), SystematicDesign(30, tail=tail)
    sizes = design.sizes(pool)
    assert sum(total for total, _ in sizes.values()) == count
    for number in (1, 2, 3):
        drawn = design.draw(pool, subject="net", round_number=number)
        assert len({entry.id for entry in drawn}) == len(drawn)
        expected = {name: own for name, (_, own) in sizes.items() if number == 1 or name != "certainty"}
        assert Counter(entry.stratum for entry in drawn) == expected


def test_a_pool_that_is_not_larger_is_measured_whole_in_every_round() -> None:
    pool = pool_of(30)
    for number in (1, 2):
        drawn = SystematicDesign(30, tail=True).draw(pool, subject="net", round_number=number)
        assert sorted(ids(drawn, "all")) == sorted(entry.id for entry in pool.inputs)


def test_every_input_of_a_stratum_is_drawn_as_often_as_its_weight_says() -> None:
    pool, design, rounds = pool_of(120), SystematicDesign(10, tail=True), 4000
    counts: Counter[str] = Counter()
    for number in range(2, rounds + 2):
        counts.update(entry.id for entry in design.draw(pool, subject="net", round_number=number))
    for name, (total, own) in design.sizes(pool).items():
        if name == "certainty":
            continue
        share = own / total
        standard_error = np.sqrt(share * (1 - share) / rounds)
        observed = np.array([counts[entry.id] / rounds for entry in design.strata(pool)[name]])
        # 4.5 standard errors for up to 118 inputs: one false alarm in a thousand other pools.
        assert np.abs(observed - share).max() <= 4.5 * standard_error + 1e-12


def test_rounds_are_independent_and_a_redone_round_is_the_same() -> None:
    pool, design = pool_of(2000), SystematicDesign(10)
    position = {entry.id: index for index, entry in enumerate(pool.by_size)}

    def start(subject: str, number: int) -> int:
        return min(position[name] for name in ids(design.draw(pool, subject=subject, round_number=number), "body"))

    starts = np.array([start("net", number) for number in range(1, 400)])
    assert abs(np.corrcoef(starts[:-1], starts[1:])[0, 1]) < 0.15
    assert start("net", 7) == starts[6]
    assert [start("other", number) for number in range(1, 9)] != starts[:8].tolist()


def test_the_draw_depends_on_the_pool_and_not_on_its_order() -> None:
    pool = pool_of(200)
    backwards = Pool(list(reversed(pool.inputs)))
    design = SystematicDesign(10)
    assert backwards.digest == pool.digest
    assert design.draw(backwards, subject="net", round_number=1) == design.draw(pool, subject="net", round_number=1)
    grown = Pool([*pool.inputs, PoolInput("new", 5)])
    assert grown.digest != pool.digest


def test_equal_sizes_stand_in_a_random_order() -> None:
    pool = pool_of(200, equal=True)
    order = [entry.id for entry in pool.by_size]
    assert order != sorted(order)
    assert abs(np.corrcoef(np.argsort(order), np.arange(200))[0, 1]) < 0.25


def test_media_types_are_drawn_in_proportion() -> None:
    sizes = np.random.default_rng(3).lognormal(9, 1, 1000).astype(int)
    pool = Pool(
        [
            PoolInput(f"{index}", int(size), "image/png" if index % 10 < 3 else "image/jpeg")
            for index, size in enumerate(sizes)
        ]
    )
    media = {entry.id: entry.media for entry in pool.inputs}
    for number in (2, 3, 4):
        drawn = SystematicDesign(20).draw(pool, subject="net", round_number=number)
        assert abs(sum(media[entry.id] == "image/png" for entry in drawn) - 6) <= 1
