"""Export, import, and nothing is lost, pooled or stored twice."""

import gzip
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text

from catalog.declaration.schema import SloSpec
from catalog.errors import ExchangeError
from catalog.evidence.database import Database, open_database
from catalog.evidence.loading import slo_evidence, strategy_evidence
from catalog.evidence.lookups import accuracy_done, inapplicable_artifacts, last_measurement, rounds_done
from catalog.evidence.reading import leaderboard
from catalog.evidence.records import LinkBytes, PartTimes
from catalog.evidence.writing import record_measurement, sync_slos, sync_strategies, upsert_environment
from catalog.exchange import Document, collect, document_bytes, forget_file, import_files, parse_document
from catalog.exchange.lineage import imported_key
from recommender.evidence.loading import load

pytestmark = pytest.mark.both_databases

NOW = datetime(2026, 11, 25, tzinfo=UTC)
TABLES = ("environment", "strategy", "artifact", "measurement", "tier_run", "link_probe", "sample", "sample_part")
TABLES += ("sample_link", "accuracy", "accuracy_item", "accuracy_class_item", "slo", "imported_file")


def exported(database: Database) -> Document:
    with database.session() as session:
        return collect(session)


def written(database: Database, file: Path) -> Path:
    file.write_bytes(document_bytes(exported(database), compress=file.suffix == ".gz"))
    return file


def counts(database: Database) -> dict[str, int]:
    with database.session() as session:
        return {table: session.execute(text(f"SELECT COUNT(*) FROM {table}")).scalar_one() for table in TABLES}


@pytest.mark.parametrize("name", ["all.json", "all.json.gz"])
def test_evidence_is_the_same_after_a_round_trip(
    rich: Database, other: Database, stored_evidence: Callable[[Database], Any], tmp_path: Path, name: str
) -> None:
    (imported,) = import_files(other, [written(rich, tmp_path / name)], now=NOW)
    assert stored_evidence(other) == stored_evidence(rich)
    before, after = counts(rich), counts(other)
    assert after == before | {"imported_file": 1}
    assert (imported.stored.environments, imported.stored.strategies) == (2, before["strategy"])
    assert imported.stored.accuracies == 3
    with other.session() as session:
        origins = [
            strategy.environment.origin for strategy in strategy_evidence(session) if strategy.environment.origin
        ]
        assert {strategy.environment.provenance for strategy in strategy_evidence(session)} == {"imported"}
        assert {row["provenance"] for row in leaderboard(session)} == {"imported"}
        assert {row["source"] for row in leaderboard(session)} == {name}
    assert {(origin.name, origin.sha256, origin.imported_at) for origin in origins} == {
        (name, imported.sha256, "2026-11-25T00:00:00.000+00:00")
    }


def test_every_attempt_and_every_item_comes_along(rich: Database, other: Database, tmp_path: Path) -> None:
    """Also what strategy_evidence does not show: failures with logs, invalid rounds, cold starts, probes."""
    import_files(other, [written(rich, tmp_path / "all.json")])
    first, second = exported(rich), exported(other)
    unplaced = [environment.model_copy(update={"imported_from": None}) for environment in second.environments]
    renamed = document_bytes(second.model_copy(update={"files": [], "environments": unplaced}))
    assert renamed.decode().replace("imported:", "") == document_bytes(first).decode()
    assert {measurement.reason for measurement in second.measurements} >= {"the tier died", "link", "load"}
    assert next(iter(second.files)).details == {"environments": {"env": "measured", "docker": "measured"}}


def test_an_export_names_no_process_of_the_host_and_the_database_goes_on_to(
    rich: Database, other: Database, make: Any, tmp_path: Path
) -> None:
    load = {"cpus": 2, "other_cpus": 1.25, "others": [{"name": "payroll", "pid": 7, "cpus": 1.25}], "steal_cpus": 0.0}
    doubted = {"rule": "host load", "note": "payroll 7: 1.25 CPUs", "verdict": "DOUBTFUL"}
    with rich.session() as session:
        where = upsert_environment(session, make.environment())
        record = make.measurement(
            where, "identity", "edge", 9, verdict="DOUBTFUL", reason="62.5 % (payroll 7: 1.25 CPUs)"
        )
        record_measurement(session, replace(record, host_load=load, findings=[doubted]))
        session.commit()
    file = written(rich, tmp_path / "all.json")
    assert "payroll" not in file.read_text()
    import_files(other, [file])
    (ninth,) = [measurement for measurement in exported(other).measurements if measurement.round == 9]
    assert ninth.reason == "62.5 % (1 other process: 1.25 CPUs)"
    assert ninth.host_load == load | {"others": [{"cpus": 1.25}]}
    assert [finding["note"] for finding in ninth.findings or ()] == ["1 other process: 1.25 CPUs"]
    with rich.session() as session:
        kept = session.execute(text("SELECT reason FROM measurement WHERE round = 9")).scalar_one()
    assert kept == "62.5 % (payroll 7: 1.25 CPUs)"


def test_an_older_export_that_names_processes_is_imported_without_the_names(
    rich: Database, other: Database, make: Any, tmp_path: Path
) -> None:
    """Import it a second time, too, and where the rest of the form is nothing the runner would write."""
    document = exported(rich)
    loads = [{"others": [{"name": "payroll", "pid": 7, "cpus": 1.0}]}, {"others": 5}, {"others": [{"name": "x"}, 3]}]
    changed = [
        measurement.model_copy(update={"host_load": load})
        for measurement, load in zip(document.measurements, loads, strict=False)
    ]
    several = [*changed, *document.measurements[len(changed) :]]
    for name in ("old.json", "again.json"):
        content = document_bytes(document.model_copy(update={"measurements": several}))
        (tmp_path / name).write_bytes(content + b"\n" * (name == "again.json"))
        import_files(other, [tmp_path / name])
    with other.session() as session:
        kept = session.execute(text("SELECT host_load FROM measurement WHERE host_load IS NOT NULL")).scalars().all()
    assert not [load for load in kept if "payroll" in str(load)]


def test_the_same_file_again_changes_nothing_compressed_or_not(rich: Database, other: Database, tmp_path: Path) -> None:
    files = [written(rich, tmp_path / name) for name in ("all.json", "all.json.gz")]
    import_files(other, [files[0]])
    before = counts(other)
    for imported in import_files(other, [*files, files[0]]):
        assert imported.stored.known_before
        assert imported.stored.samples == imported.stored.strategies == 0
    assert counts(other) == before


def test_classes_that_were_counted_come_along(rich: Database, other: Database, tmp_path: Path) -> None:
    with rich.session() as session:
        session.execute(text('UPDATE accuracy SET class_counts = \'{"0": 6, "1": 4}\''))
        session.commit()
    import_files(other, [written(rich, tmp_path / "counted.json")])
    for database in (rich, other):
        assert {str(accuracy.class_counts) for accuracy in exported(database).accuracies} == {"{'0': 6, '1': 4}"}


def test_the_committed_evidence_is_exported_as_it_was_imported(tmp_path: Path) -> None:
    """Leave the bytes of older evidence alone when columns and fields are added."""
    path = Path(__file__).parents[3] / "catalogs/embedded-evidence.json.gz"
    whole = parse_document(gzip.decompress(path.read_bytes()), file=path.name)
    # One round of every strategy has all the fields that five have.
    first_rounds = [measurement for measurement in whole.measurements if measurement.round == 1]
    before = whole.model_copy(update={"measurements": first_rounds})
    committed = tmp_path / "committed.json"
    committed.write_bytes(document_bytes(before))
    with open_database(tmp_path / "other.db", create=True) as opened:
        import_files(opened, [committed], now=NOW)
        after = exported(opened)
    for name in ("artifacts", "strategies", "measurements", "accuracies"):
        said, sent = (document_bytes(Document(**{name: getattr(document, name)})) for document in (before, after))
        assert sent.replace(b'"imported:', b'"') == said


def test_exports_are_the_same_bytes(rich: Database, tmp_path: Path) -> None:
    for name in ("a.json", "a.json.gz"):
        assert written(rich, tmp_path / name).read_bytes() == written(rich, tmp_path / f"b{name}").read_bytes()


def test_imported_evidence_is_never_pooled_with_what_was_measured_here(
    rich: Database, stored_evidence: Callable[[Database], Any], tmp_path: Path
) -> None:
    """Import a database's own export: everything is there twice, side by side."""
    before = stored_evidence(rich)
    with rich.session() as session:
        rounds = rounds_done(session, "latency-identity-edge")
        refused = inapplicable_artifacts(session)
    import_files(rich, [written(rich, tmp_path / "own.json")])
    assert stored_evidence(rich) == [*before, *before]
    with rich.session() as session:
        assert rounds_done(session, "latency-identity-edge") == rounds
        assert rounds_done(session, "imported:latency-identity-edge") == rounds
        assert inapplicable_artifacts(session) == refused | {"imported:refused": "no cut"}
        ranks = [(row["provenance"], row["rank"]) for row in leaderboard(session) if row["launcher"] == "process"]
    assert sorted(rank for kind, rank in ranks if kind == "measured") == sorted(
        rank for kind, rank in ranks if kind == "imported"
    )


def test_imported_evidence_does_not_answer_for_missing_measurements(
    rich: Database, other: Database, make: Any, tmp_path: Path
) -> None:
    import_files(other, [written(rich, tmp_path / "all.json")])
    with other.session() as session:
        assert rounds_done(session, "latency-identity-edge") == set()
        assert not accuracy_done(session, "accuracy-identity")
        assert last_measurement(session, "net", "identity", "edge", "env") is None
        where = upsert_environment(session, make.environment())
        assert record_measurement(session, make.measurement(where, "identity", "edge", 1)) > 0


def test_the_next_fill_leaves_imported_strategies_declared(
    rich: Database, other: Database, make: Any, tmp_path: Path
) -> None:
    import_files(other, [written(rich, tmp_path / "all.json")])
    with other.session() as session:
        before = len(strategy_evidence(session))
        where = upsert_environment(session, make.environment("here"))
        sync_strategies(session, where, [make.strategy("identity", "edge")])
        sync_strategies(session, where, [])
        assert len(strategy_evidence(session)) == before


def test_a_later_export_adds_only_what_is_new(
    database: Database, other: Database, fill: Callable[[], Any], stored_evidence: Any, make: Any, tmp_path: Path
) -> None:
    fill()
    import_files(other, [written(database, tmp_path / "monday.json")])
    with database.session() as session:
        record_measurement(session, make.measurement(1, "identity", "edge", 4))
        session.commit()
    (imported,) = import_files(other, [written(database, tmp_path / "tuesday.json")])
    assert (imported.stored.rounds, imported.stored.samples, imported.stored.environments) == (1, 20, 0)
    assert stored_evidence(other) == stored_evidence(database)
    with other.session() as session:
        files = session.execute(text("SELECT imported_file_id, COUNT(*) FROM measurement GROUP BY 1 ORDER BY 1")).all()
    assert files == [(1, 18), (2, 1)]


def test_what_contradicts_an_earlier_import_is_kept_apart_from_it(
    database: Database, other: Database, fill: Callable[[], Any], stored_evidence: Any, make: Any, tmp_path: Path
) -> None:
    fill()
    import_files(other, [written(database, tmp_path / "first.json")])
    before, earlier = counts(other), stored_evidence(other)
    with database.session() as session:
        session.execute(text("UPDATE sample SET latency_s = 2 * latency_s WHERE measurement_id = 1"))
        session.execute(text("UPDATE accuracy SET top5_pct = NULL WHERE operator = 'quantized'"))
        record_measurement(session, make.measurement(1, "identity", "edge", 4))
        session.commit()
    (imported,) = import_files(other, [written(database, tmp_path / "second.json")])
    assert "does not contain that evidence unchanged" in imported.stored.apart[0]
    assert stored_evidence(other)[: len(earlier)] == earlier
    after = counts(other)
    assert (after["environment"], after["measurement"]) == (2, 2 * before["measurement"] + 1)


def test_one_bad_file_of_two_stores_nothing(rich: Database, other: Database, tmp_path: Path) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text("subject\n")
    with pytest.raises(ExchangeError, match=r"bad\.csv: missing columns operator"):
        import_files(other, [written(rich, tmp_path / "all.json"), bad])
    assert set(counts(other).values()) == {0}


def slo(p50: str) -> SloSpec:
    return SloSpec.model_validate({"latency": {"p50": p50}})


def test_declared_targets_are_kept(rich: Database, other: Database, tmp_path: Path) -> None:
    with other.session() as session:
        sync_slos(session, {"fast": slo("1ms"), "mine": slo("2ms")})
        session.commit()
    (imported,) = import_files(other, [written(rich, tmp_path / "all.json")])
    assert imported.stored.slos_kept == ("fast",)
    with other.session() as session:
        assert [slo.latency_s for slo in slo_evidence(session)] == [{50.0: 0.001}, {50.0: 0.002}]


def subject_limits(database: Database) -> dict[str, dict[str, dict[float, float]]]:
    evidence = load(database)
    return {
        subject: {name: target.latency_s for name, target in evidence.slos_of(subject).items()}
        for subject in evidence.subjects
    }


def test_targets_of_two_catalogs_survive_an_export(rich: Database, other: Database, tmp_path: Path) -> None:
    """A document had one target of a name, and that of one catalog was lost."""
    with rich.session() as session:
        sync_slos(session, {"fast": slo("1ms"), "mine": slo("2ms")}, subjects=["net"])
        sync_slos(session, {"fast": slo("1s")}, subjects=["canvas"])
        session.commit()
    own = {"net": {"fast": {50.0: 0.001}, "mine": {50.0: 0.002}}, "canvas": {"fast": {50.0: 1.0}}}
    assert subject_limits(rich) == own
    import_files(other, [written(rich, tmp_path / "all.json")])
    assert subject_limits(other) == own
    assert exported(other).subject_slos == exported(rich).subject_slos
    # Nothing of them stays behind the file.
    forget_file(other, "all.json")
    with other.session() as session:
        assert session.execute(text("SELECT COUNT(*) FROM subject_slo")).scalar_one() == 0


def test_a_catalog_without_targets_gets_none_of_another(rich: Database, other: Database, tmp_path: Path) -> None:
    with rich.session() as session:
        sync_slos(session, {"fast": slo("1ms")}, subjects=["net"])
        sync_slos(session, {}, subjects=["canvas"])
        session.commit()
    own = {"net": {"fast": {50.0: 0.001}}, "canvas": {}}
    assert subject_limits(rich) == own
    document = exported(rich)
    assert document.subject_slos == {"canvas": []}
    import_files(other, [written(rich, tmp_path / "all.json")])
    assert subject_limits(other) == own
    assert exported(other).subject_slos == {"canvas": []}
    # A question's own targets are no catalog's, and are answered for both.
    with rich.session() as session:
        sync_slos(session, {"single": slo("3ms")}, subjects=["canvas"], keep_others=True)
        session.commit()
    assert subject_limits(rich) == own | {"canvas": {"single": {50.0: 0.003}}}


def test_targets_of_a_subject_that_is_declared_here_are_kept(rich: Database, other: Database, tmp_path: Path) -> None:
    with rich.session() as session:
        sync_slos(session, {"fast": slo("1ms")}, subjects=["net"])
        session.commit()
    with other.session() as session:
        sync_slos(session, {"fast": slo("5ms")}, subjects=["net"])
        session.commit()
    (imported,) = import_files(other, [written(rich, tmp_path / "all.json")])
    assert imported.stored.slos_kept == ("fast",)
    assert subject_limits(other)["net"] == {"fast": {50.0: 0.005}}


def test_only_some_subjects(rich: Database, other: Database, tmp_path: Path) -> None:
    with rich.session() as session:
        document = collect(session, subjects=["canvas"])
        with pytest.raises(ExchangeError, match="there is no subject 'nett'; known: canvas, net"):
            collect(session, subjects=["nett"])
    assert {strategy.subject for strategy in (*document.strategies, *document.accuracies)} == {"canvas"}
    assert document.measurements == []
    file = tmp_path / "canvas.json"
    file.write_bytes(document_bytes(document))
    (imported,) = import_files(other, [file])
    assert (imported.stored.strategies, imported.stored.accuracies) == (1, 1)


def test_provenance_travels_on(rich: Database, other: Database, tmp_path: Path) -> None:
    """Import from A to B to C: still imported, with the way it came."""
    import_files(other, [written(rich, tmp_path / "a.json")], now=NOW)
    second = written(other, tmp_path / "b.json.gz")
    document = parse_document(document_bytes(exported(other)), file="b")
    assert all(environment.key == imported_key(environment.key) for environment in document.environments)
    import_files(other, [second])
    assert counts(other)["environment"] == 2
    chain = exported(other).files
    assert [entry.name for entry in chain] == ["a.json"]


def test_any_samples_survive(
    database: Database, other: Database, make: Any, stored_evidence: Any, tmp_path: Path
) -> None:
    """Doubles of every allowed magnitude, missing parts and links, repetitions out of order, exactly."""
    rng = np.random.default_rng(3)

    def some(*names: str) -> list[str]:
        return [name for name in names if rng.random() < 0.7]

    values = np.exp(rng.uniform(-20, 20, 400))
    samples = [
        replace(
            sample,
            transmission_s=float(values[-sample.seq - 1]),
            repetition=int(rng.integers(0, 9)),
            input_id=f"ä {rng.integers(0, 50)}.jpg",
            parts=[PartTimes(tier, *map(float, rng.random(4))) for tier in some("mobile", "edge")],
            links=[LinkBytes(link, int(rng.integers(0, 2**46)), 0) for link in some("x", "y")],
        )
        for sample in make.samples(values, "cloud")
    ]
    with database.session() as session:
        where = upsert_environment(session, make.environment())
        sync_strategies(session, where, [make.strategy("identity", "cloud")])
        record_measurement(session, make.measurement(where, "identity", "cloud", 1, samples=samples))
        session.commit()
    import_files(other, [written(database, tmp_path / "any.json.gz")])
    assert stored_evidence(other) == stored_evidence(database)
    query = text("SELECT * FROM sample_part UNION ALL SELECT sample_id, link, sent_bytes, 0, 0, 0 FROM sample_link")
    with database.session() as first, other.session() as second:
        assert sorted(first.execute(query).all()) == sorted(second.execute(query).all())
