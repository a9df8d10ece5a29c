"""Labels that cannot judge a model, remarked before anything is measured."""

from runner.errors import SubjectError
from runner.subjects.dataset import Subject
from runner.subjects.folders import FolderDataset
from runner.subjects.tensors import TensorDataset


def one_class_remark(subject: Subject) -> str | None:
    """Return the remark that all judged items have one label; None where they do not, or where there are no labels.

    Identity's answers, which stand for labels where there are none, are not known before a fill, which remarks them.
    """
    dataset = subject.dataset
    if subject.metric != "accuracy" or not isinstance(dataset, FolderDataset | TensorDataset) or subject.absent():
        return None
    try:
        counts = dataset.label_counts()
    except SubjectError:  # a plan or a fill, which cannot go on without the labels, reports it
        return None
    if len(counts) != 1:
        return None
    # Imported where it is needed: the statistics take longer to import than a catalog to check.
    from catalog.statistics.description import chance_remark

    return chance_remark("top1", 100.0, sum(counts.values()), counts)
