"""Files of labels as people, spreadsheets and pandas write them."""

from pathlib import Path

import pytest

from runner.errors import SubjectError
from runner.subjects.layouts.own import read_label_file

LABELS = {"00.jpg": 2, "01.jpg": 0, "02.png": 1}
FILE = Path("labels.csv")


@pytest.mark.parametrize(
    "text",
    [
        "00.jpg,2\n01.jpg,0\n02.png,1\n",
        # A series of pandas whose index are the names, and a frame without an index.
        ",label\n00.jpg,2\n01.jpg,0\n02.png,1\n",
        "file,label\n00.jpg,2\n01.jpg,0\n02.png,1\n",
        # A frame with its index, and one that was read with it and written again.
        ",file,label\n0,00.jpg,2\n1,01.jpg,0\n2,02.png,1\n",
        "Unnamed: 0,file,label\n0,00.jpg,2.0\n1,01.jpg,0.0\n2,02.png,1.0\n",
        "label,file\n2,00.jpg\n0,01.jpg\n1,02.png\n",
        "1,00.jpg,2\n2,01.jpg,0\n3,02.png,1\n",
        "file;label\r\n00.jpg;2\r\n01.jpg;0\r\n02.png;1\r\n",
        "\ufeff00.jpg\t2\n01.jpg\t0\n\n02.png\t1",
        'name,class\n"photos/00.jpg", 2\n./01.jpg, 0\nC:\\photos\\02.png, 1\n',
    ],
)
def test_a_label_file_is_read_as_it_is_written(text: str) -> None:
    assert read_label_file(text.encode(), FILE, 3) == LABELS


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("file,label,split\n00.jpg,2,train\n01.jpg,0,test\n", "line 1: got 'file,label,split'; expected two columns"),
        ("00.jpg,cat\n01.jpg,dog\n", "line 1: got '00.jpg,cat'; expected a file's name and a class number from 0 to 2"),
        ("file,label\n00.jpg,cat\n", "line 2: got '00.jpg,cat'"),
        ("file,label\n00.jpg,\n", "line 2: got '00.jpg,'"),
        ("file,label\n00.jpg,3\n", "line 2: got '00.jpg,3'"),
        ("00.jpg,1.5\n", "line 1: got '00.jpg,1.5'"),
        ("00.jpg,1_0\n", "line 1: got '00.jpg,1_0'"),
        (",label\n", "line 1: got ',label'"),
        ("a/00.jpg,1\n\nb/00.jpg,2\n", "line 3: 00.jpg is class 2, and was 1 above"),
    ],
)
def test_a_label_file_that_cannot_be_read_is_refused_in_one_sentence(text: str, says: str) -> None:
    with pytest.raises(SubjectError) as refused:
        read_label_file(text.encode(), FILE, 3)
    assert says in str(refused.value) and "\n" not in str(refused.value)
