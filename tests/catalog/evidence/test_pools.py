"""What stored samples of rounds that drew their inputs stand for."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from catalog.evidence.database import Database
from catalog.evidence.loading import stored_samples, strategy_evidence
from catalog.evidence.records import MeasurementRecord, PoolInputRecord, PoolRecord
from catalog.evidence.writing import sync_strategies
from catalog.statistics.input_draw import Pool, PoolInput, SystematicDesign
from tests.evidence_builder import EvidenceBuilder, latency_key, measurement_record, sample_records, strategy_record

POOL = Pool([PoolInput(f"{index:03d}.jpg", 1000 + 10 * index, "image/jpeg") for index in range(150)])
DESIGN = SystematicDesign(10, tail=True)


def drawn_round(environment: int, number: int, **changes: Any) -> MeasurementRecord:
    """Return a round of identity on mobile whose latency is the size of the input."""
    drawn = DESIGN.draw(POOL, subject="net", round_number=number)
    size = {entry.id: entry.size for entry in POOL.inputs}
    samples = [
        replace(sample, input_id=entry.id, stratum=entry.stratum)
        for sample, entry in zip(sample_records([size[entry.id] / 1e5 for entry in drawn]), drawn, strict=True)
    ]
    strata = {name: {"pool": total, "drawn": own} for name, (total, own) in DESIGN.sizes(POOL).items()}
    values: dict[str, Any] = {
        "samples": samples,
        "inputs_select": "systematic",
        "protocol": {"select": "systematic", "inputs": 10, "tail": True, "strata": strata},
        "pool_key": POOL.digest,
        "pool": PoolRecord(
            POOL.digest, "bytes", [PoolInputRecord(entry.id, entry.size, entry.media) for entry in POOL.inputs]
        ),
    }
    return measurement_record(environment, "net", "identity", "mobile", number, **(values | changes))


def fill(database: Database, **changes: Any) -> str:
    builder = EvidenceBuilder(database)
    environment = builder.environment()
    builder.store_rounds(drawn_round(environment, number, **changes) for number in (1, 2, 3))
    with database.session() as session:
        sync_strategies(session, environment, [strategy_record(environment, "net", "identity", "mobile")])
        session.commit()
    return latency_key(environment, "net", "identity", "mobile")


def test_every_round_stands_for_the_pool_once(database: Database) -> None:
    fill(database)
    with database.session() as session:
        (evidence,) = strategy_evidence(session)
    design = evidence.design
    assert design is not None and design.size is not None
    for number in (1, 2, 3):
        own = (evidence.round == number) & ~design.certain
        assert design.weight[own].sum() + 2 == pytest.approx(150)
    assert design.weight[design.certain].tolist() == [1.0, 1.0]
    assert evidence.round[design.certain].tolist() == [1, 1]
    sizes = [1000 + 10 * int(evidence.input_ids[index][:3]) for index in evidence.input_index]
    assert design.size.tolist() == sizes
    assert design.pool_size is not None
    assert design.pool_size.tolist() == [1000 + 10 * index for index in range(150)]


def test_the_median_of_drawn_rounds_is_the_pools(database: Database) -> None:
    key = fill(database)
    with database.session() as session:
        samples = stored_samples(session, key)
        view = session.connection().exec_driver_sql("SELECT median_latency_s FROM leaderboard").scalar()
    assert samples is not None and samples.interpenetrating
    # Ten of the body and all three of the tail in every round, and the two largest in the first.
    assert samples.supporting_inputs == 3 * 13 + 2
    # The large inputs are drawn more often than others: a median of all samples would be above the pool's.
    truth = np.median([entry.size / 1e5 for entry in POOL.inputs])
    assert view == pytest.approx(truth, rel=0.05)


@pytest.mark.parametrize("fault", ["an empty stratum", "a round of certain inputs alone"])
def test_a_design_that_describes_nothing_is_not_used(database: Database, fault: str) -> None:
    changes: dict[str, Any] = {}
    if fault == "an empty stratum":
        strata = {name: {"pool": 0, "drawn": own} for name, (_, own) in DESIGN.sizes(POOL).items()}
        changes["protocol"] = {"select": "systematic", "inputs": 10, "tail": True, "strata": strata}
    else:
        samples = drawn_round(1, 1).samples
        changes["samples"] = [replace(sample, stratum="certainty") for sample in samples]
    key = fill(database, **changes)
    with database.session() as session:
        samples_of_key = stored_samples(session, key)
    assert samples_of_key is not None and not samples_of_key.interpenetrating


def test_rounds_without_strata_are_crossed(database: Database) -> None:
    key = fill(database, pool_key=None, pool=None)
    with database.session() as session:
        assert stored_samples(session, "another") is None
        samples = stored_samples(session, key)
    assert samples is not None and not samples.interpenetrating
