"""The page's Python side: what is in it, how it is packed, that none of it is markup, its size."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import re
import zlib
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import planted_boards as planted
import pytest
from jinja2 import UndefinedError
from test_board import HOSTILE

from perimetry.adapters.errors import InputError
from perimetry.bench.figures.canvas import quantised
from perimetry.bench.output.files import StoreError
from perimetry.bench.output.templates import asset, render
from perimetry.bench.output.text import clean
from perimetry.bench.ranking.names import short_names
from perimetry.bench.ranking.page.join import join_table, join_tables
from perimetry.bench.ranking.page.maps import choose_level, pack_maps, reduced, thumbs
from perimetry.bench.ranking.page.model_panel import (
    grouped_by_size,
    packed,
    packed_json,
    panels,
    raw_records,
    unpacked,
)
from perimetry.bench.ranking.page.numbers import content
from perimetry.bench.ranking.page.page import own_script, page, policy, write_page
from perimetry.bench.ranking.tables import render_board
from perimetry.bench.ranking.view import View, shown_groups
from perimetry.bench.records.parts import Value
from perimetry.suites.deadpixel.suite import NOT_ALWAYS_BETTER

WHEN = datetime(2026, 1, 2, tzinfo=UTC)
MARKUP = ["</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", '"><b id=injected>']


def blocks(text):
    """Every packed block of a page by its id, unpacked."""
    found = re.findall(r'<script type="text/plain" id="([\w-]+)">([^<]*)</script>', text)
    return {name: unpacked(block) for name, block in found}


def data_of(text):
    """The numbers of a page with the facts of its details."""
    found = blocks(text)
    return json.loads(found["data"]) | json.loads(found["details"])


def page_data(board, **options):
    return data_of(page(board, title="t", created=WHEN, **options))


def three():
    """Even, uneven and unmeasured."""
    lost = planted.record("lost", 0.5, metrics={"weakest": Value(value=None, reason="no phases")})
    return planted.board([*planted.pair("b", 0.4, 0.9), *planted.pair("a", 0.8, 0.85), lost])


def test_numbers_are_columns_in_the_board_s_order_with_ranks_and_changes():
    """Models as the board ranks them as they are; a missing number is null with its reason."""
    data = content(three())
    assert data["models"]["reference"] == ["a", "b", "lost"]
    place = [m["id"] for m in data["metrics"]].index("deadpixel.weakest")
    plain, box = data["numbers"][place]["none"], data["numbers"][place]["box"]
    assert plain["v"] == [0.8, 0.4, None]
    assert plain["low"] == [0.79, 0.39, None]
    assert plain["rank"] == [1, 2, None]
    assert data["reasons"][plain["why"]["2"]] == "no phases"
    assert box["change"] == pytest.approx([0.05, 0.5, None])
    assert box["changeHigh"][1] - 0.5 == pytest.approx(0.01 * 2**0.5, rel=1e-4)


def test_every_metric_has_its_own_ranks():
    """Ranks by a metric follow that metric's own direction, whatever the board was sorted by."""
    values = (
        {"by_period_2": Value(value=3.0, low=2.9, high=3.1)},
        {"by_period_2": Value(value=1.0, low=0.9, high=1.1)},
    )
    records = [
        planted.record(n, v, metrics=m) for n, v, m in zip("ab", (0.9, 0.1), values, strict=True)
    ]
    data = content(planted.board(records))
    ids = [m["id"] for m in data["metrics"]]
    numbers = data["numbers"]
    assert numbers[ids.index("deadpixel.weakest")]["none"]["rank"] == [1, 2]
    assert numbers[ids.index("deadpixel.by_period_2")]["none"]["rank"] == [2, 1]


def test_names_are_short_only_where_they_stay_apart():
    """`timm:` and folders go; two files of one name keep their folders."""
    assert short_names(["timm:resnet18@init", "/x/a.onnx"]) == ["resnet18@init", "a.onnx"]
    assert short_names(["/x/a.onnx", "/y/a.onnx"]) == ["/x/a.onnx", "/y/a.onnx"]


def test_nothing_of_a_record_is_markup():
    """Titles are escaped, everything else is base64: no hostile text is in the page as it is."""
    records = [
        planted.record(n, 0.5, model={"source": {"weights": n}}) for n in [*HOSTILE, *MARKUP]
    ]
    text = page(planted.board(records), title=MARKUP[0], created=WHEN)
    for name in MARKUP:
        assert name not in text
    assert "&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert clean(text.replace("\n", " "), 10**9) == text.replace("\n", " ")


def test_hostile_names_in_the_data_are_clean_and_whole_in_the_records():
    """What is shown has no control character; what is downloaded is what was stored."""
    records = [planted.record(n, 0.5) for n in HOSTILE]
    data = content(planted.board(records))
    assert set(data["models"]["reference"]) == {clean(n, 1000) for n in HOSTILE}
    (group,) = raw_records([{"none": records}], tables=True).blocks
    stored = [r["model"]["reference"] for r in json.loads(unpacked(group))[0]]
    assert stored == HOSTILE


def test_only_the_page_s_own_scripts_may_run():
    """The policy names the hash of every script, allows no fetch, and no script is inline else."""
    text = page(three(), title="t", created=WHEN)
    rule = re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1]
    assert rule == policy(
        [asset(f"vendor_{n}.js") for n in ("tabulator", "d3", "plot")] + [own_script()]
    )
    assert "default-src 'none'" in rule
    assert "connect-src" not in rule
    assert "unsafe-inline" not in rule.partition("script-src")[2].partition(";")[0]
    inline = re.findall(r"<script>(.*?)</script>", text, flags=re.S)
    assert inline == [own_script()]


def test_library_code_cannot_end_its_element():
    """No vendored or own script holds what ends or comments out a script element."""
    for name in ("vendor_tabulator.js", "vendor_d3.js", "vendor_plot.js"):
        assert not re.search(r"</script|<!--", asset(name), flags=re.I)
    assert not re.search(r"</script|<!--", own_script(), flags=re.I)


def test_the_page_carries_its_libraries_and_their_licences():
    """The packed libraries are the vendored files, byte for byte, with the licence texts."""
    text = page(three(), title="t", created=WHEN)
    held = blocks(text)
    for place, name in enumerate(("tabulator", "d3", "plot")):
        assert held[f"library-{place}"].decode() == asset(f"vendor_{name}.js")
    for owner in ("Oli Folkerd", "Mike Bostock", "Observable, Inc.", "Mikola Lysenko"):
        assert owner in text


def test_equal_boards_give_equal_pages():
    """The same records and time give the same bytes."""
    assert page(three(), title="t", created=WHEN) == page(three(), title="t", created=WHEN)


def test_a_template_cleans_and_escapes_its_parts_and_does_not_expand_them():
    """Markup, control characters and braces of a part are text; a missing part is an error."""
    parts = {"record": {"label": "{{ maps }}<b>\x1b", "notes": ["<i>"]}, "rows": [("&", "'")]}
    text = render("notebook_record.html", status="ok", maps=[], **parts)
    assert "<b>{{ maps }}&lt;b&gt;\\x1b</b>" in text
    assert "<li>&lt;i&gt;</li>" in text
    assert "<td>&amp;</td><td>&#39;</td>" in text
    with pytest.raises(UndefinedError):
        render("notebook_record.html", status="ok")


def test_packing_is_deflate_in_base64_of_strict_json():
    """A block is what any zlib unpacks; NaN is refused; groups keep order and size."""
    assert zlib.decompress(base64.b64decode(packed(b"abc"))) == b"abc"
    with pytest.raises(ValueError, match="not JSON compliant"):
        packed_json([float("nan")])
    assert list(grouped_by_size([b"aa", b"bb", b"cccccc", b"d"], 4)) == [
        [b"aa", b"bb"],
        [b"cccccc"],
        [b"d"],
    ]


def block_means(values, side):
    """Means over blocks, literally: every pixel shared out by the area it has in each block."""
    rows, columns = values.shape
    n, m = min(rows, side), min(columns, side)
    found = np.zeros((n, m))
    for i in range(rows):
        for j in range(columns):
            for a in range(n):
                for b in range(m):
                    tall = max(0, min(i + 1, (a + 1) * rows / n) - max(i, a * rows / n))
                    wide = max(0, min(j + 1, (b + 1) * columns / m) - max(j, b * columns / m))
                    found[a, b] += values[i, j] * tall * wide / (rows / n * columns / m)
    return found


@pytest.mark.parametrize("shape", [(12, 12), (7, 10), (3, 9)])
def test_reduced_maps_are_means_over_blocks(shape):
    """Whole and fractional blocks, and axes that are short enough already."""
    values = np.random.default_rng(0).uniform(0, 1, shape)
    assert reduced(values, 4) == pytest.approx(block_means(values, 4))


def test_bytes_run_from_the_low_to_the_high_end():
    """Linear between the ends, rounded, and cut off beyond them."""
    values = np.array([[-1.0, 0.0, 0.5], [1.0, 2.0, 3.0]])
    assert quantised(values, 0.0, 2.0).tolist() == [[0, 0, 64], [128, 255, 255]]


def test_maps_get_coarser_until_they_fit():
    """Much room keeps all maps, less only a coarse one and the profile, none nothing."""
    maps = {**planted.field(0.5), "erf": np.random.default_rng(1).uniform(0, 1, (200, 200))}
    maps["sensitivity"] = np.random.default_rng(2).uniform(0, 1, (200, 200))
    variants = [[planted.record(str(n), 0.5, maps=maps)] for n in range(3)]
    assert choose_level(variants, 10**9) is None
    assert choose_level(variants, 60_000) in (112, 56)
    assert choose_level(variants, 10) == 0
    names = {
        level: [p.facts["name"] for p in pack_maps(variants[0], level)] for level in (None, 56, 0)
    }
    assert names == {
        None: ["sensitivity", "phase_profile", "erf"],
        56: ["sensitivity", "phase_profile"],
        0: [],
    }
    assert pack_maps(variants[0], 56)[0].facts["shape"] == [56, 56]


def test_where_one_map_has_room_it_is_the_measured_one():
    """Of an expected and a measured map a coarse page shows what was measured, as thumbnails do."""
    records = [
        planted.record("a", 0.5, suite=suite, maps=planted.field(0.5))
        for suite in ("structure", "deadpixel")
    ]
    suites = {
        level: {p.facts["suite"] for p in pack_maps(records, level)} for level in (None, 112, 56)
    }
    assert suites == {None: {"structure", "deadpixel"}, 112: {"deadpixel"}, 56: {"deadpixel"}}


def test_thumbnails_are_over_the_mean():
    """A map and a profile, bytes from 0 to the largest value in means."""
    record = planted.record("a", 0.5, maps=planted.field(0.25))
    whole, profile = thumbs([record])
    assert [whole[1][0], profile[1][0]] == ["whole", "profile"]
    _, rows, columns, top = profile[1]
    values = np.frombuffer(profile[0], np.uint8).reshape(rows, columns) / 255 * top
    assert values == pytest.approx(planted.field(0.25)["phase_profile"], abs=top / 255)


def test_records_without_maps_make_a_page():
    """Packed records have no maps: no thumbnails, no map facts, and all the rest."""
    board = planted.board([planted.record("a", 0.5, map_names=["sensitivity"])])
    data = page_data(board)
    assert data["thumbs"] == [{"none": []}]
    words, _ = panels([{"none": board.records}], board.suites, None)
    assert json.loads(unpacked(words.blocks[0]))[0]["fills"]["none"]["maps"] == []


def test_broken_maps_cost_no_model_its_row():
    """A model whose arrays cannot be read keeps its row on the page."""

    def broken():
        raise StoreError("not a zip file")

    record = planted.record("a", 0.5)
    record.attach(broken)
    assert page_data(planted.board([record]))["models"]["reference"] == ["a"]


def test_equal_maps_are_held_once():
    """The maps of a padded model that nothing changed are stored once."""
    changed_pair = {
        f: [planted.record("a", 0.5, fill=f, maps=planted.field(0.5))] for f in ("none", "box")
    }
    one = panels([{"none": changed_pair["none"]}], {}, None)[1]
    both = panels([changed_pair], {}, None)[1]
    assert len(unpacked(both.blocks[0])) == len(unpacked(one.blocks[0]))


def write_csv(path, text):
    path.write_text(text, encoding="utf-8")
    return path


RESULTS = """model,img_size,top1,param_count,interpolation
a.x,16,70.5,11.7,bicubic
a.y,16,71.5,11.8,bicubic
a.z,32,99.0,11.8,bicubic
b.onnx,16,60,,bilinear
"""


def test_accuracy_joins_by_name_and_image_size(tmp_path):
    """A file by its name, `@init` by its architecture's best line of that size, or not."""
    records = [planted.record(n, 0.5) for n in ("timm:a@init", "/x/b.onnx", "c")]
    found = join_table(write_csv(tmp_path / "r.csv", RESULTS), records)
    assert found.columns == {"top1": [71.5, 60.0, None], "param_count": [11.8, None, None]}
    assert found.note == (
        "r.csv: 2 of 3 models, 2 of 4 lines; 1 without weights have the best number of their "
        "architecture"
    )


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("name,top1\na,1\n", "column `model`"),
        ("model,img_size\na,16\n", "no column of numbers"),
        ("model,top1\nother,1\n", "has none of the 1 models"),
        ("", "column `model`"),
    ],
)
def test_tables_that_cannot_be_joined_say_what_was_expected(tmp_path, text, stated):
    """A wrong table is an error, not an empty column."""
    with pytest.raises(InputError, match=stated):
        join_table(write_csv(tmp_path / "r.csv", text), [planted.record("a", 0.5)])
    with pytest.raises(InputError, match="cannot read"):
        join_table(tmp_path / "absent.csv", [planted.record("a", 0.5)])


def test_the_warning_is_in_the_page_s_data():
    """Fewer dead pixels are not always better: the page has the sentence beside the column."""
    assert page_data(three())["note"] == NOT_ALWAYS_BETTER


def many(count):
    """A zoo of `count` models x 2 variants with maps of 224 x 224 and their intervals."""
    rng = np.random.default_rng(0)
    rows, records = rng.uniform(0.05, 1, count), []
    shared = [np.tile(planted.field(w)["phase_profile"], (56, 56)) for w in (0.1, 0.5, 0.9)]
    for place, value in enumerate(rows):
        maps = {
            "sensitivity": shared[place % 3]
            * rng.uniform(0.5, 1.5, (56, 56)).repeat(4, 0).repeat(4, 1),
            "phase_profile": planted.field(value)["phase_profile"],
        }
        name = f"model_{place:04}"
        records += [
            planted.record(name, v, fill=f, maps=maps) for f, v in (("none", value), ("box", 1.0))
        ]
    return planted.board(records)


def test_a_whole_zoo_s_page_stays_under_its_limit(tmp_path):
    """1,400 models x 2 variants with maps take less than 8 MB, and less where less is asked."""
    board = many(1400)
    size = write_page(board, tmp_path / "zoo.html", title="Zoo")
    assert size == (tmp_path / "zoo.html").stat().st_size
    assert size < 8_000_000
    assert write_page(board, tmp_path / "zoo.html", title="Zoo", largest=4_000_000) < 4_000_000


def test_latex_is_inert_and_one_row_a_line():
    """Every special character of a name is escaped, and comments hold no line break."""
    records = [planted.record(n, 0.5) for n in [*HOSTILE, r"\input{x}%&$#~^"]]
    text = render_board(planted.board(records), "tex")
    assert r"\textbackslash{}input\{x\}\%\&\$\#" in text
    body = text[text.index(r"\begin") :]
    assert body.count(r" \\") == len(records) + 1
    assert all(line.startswith(("%", "\\", " ")) for line in text.rstrip().split("\n"))


def test_csv_beside_the_page_reads_back():
    """The CSV of the board has every model of the page."""
    rows = list(csv.DictReader(io.StringIO(render_board(three(), "csv"))))
    assert {row["model"] for row in rows} == {"a", "b", "lost"}


def test_numbers_that_json_has_not_cost_no_page():
    """NaN in a table or a timing, as only a hostile record has it, is a word or nothing."""
    row = {"name": "x", "kind": "conv", "kernel": [3, 3], "stride": [2, 2], "reduction": math.nan}
    one = planted.record("a", 0.5, tables={"culprits": [row]})
    one.timing = one.timing.model_copy(update={"measure_s": math.nan})
    data = page_data(planted.board([one]))
    assert "measure" not in data["costs"]
    words, _ = panels([{"none": [one]}], {}, None)
    assert json.loads(unpacked(words.blocks[0]))[0]["fills"]["none"]["culprits"][0][0] == "x"


def sized(record, side):
    """The record at another input size."""
    spec = {**record.model.spec, "height": side, "width": side}
    return record.model_copy(update={"model": record.model.model_copy(update={"spec": spec})})


def test_every_table_says_which_models_have_a_line_and_why_others_have_none(tmp_path):
    """Several test sets: columns of one name are distinguished, reasons are by model."""
    names = ("timm:a.x", "timm:b@init", "timm:c.y", "toy:d@init")
    records = [sized(planted.record(name, 0.5), 64) for name in names]
    first = write_csv(
        tmp_path / "one.csv", "model,img_size,top1\na.x,64,70\nb.t,64,60\nb.u,64,65\n"
    )
    second = write_csv(tmp_path / "two.csv", "model,img_size,top1\na.x,64,50\nc.y,128,40\n")
    found = join_tables([first, second], records)
    assert found.columns == {
        "top1 (one)": [70.0, 65.0, None, None],
        "top1 (two)": [50.0, None, None, None],
    }
    one, two = found.tables
    assert one.unmatched.keys() == {"timm:c.y", "toy:d@init"}
    assert two.unmatched["timm:c.y"] == "no line at its size 64, only at 128"
    assert two.unmatched["timm:b@init"] == "no line of its name"
    assert "not an architecture of timm" in two.unmatched["toy:d@init"]
    assert "2 of 4 models, 2 of 3 lines" in one.text
    assert all(name in two.text for name in ("timm:b@init", "timm:c.y", "toy:d@init"))


def test_a_page_opens_where_the_ranking_says_something():
    """Many equal numbers at the top: the page begins with the last rank; else with the first."""
    flat = [planted.record(f"m{k:02d}", 1.0) for k in range(20)]
    stated = [*flat, planted.record("weak", 0.2)]
    assert content(planted.board(stated))["worst_first"]
    assert not content(planted.board(stated[10:]))["worst_first"]
    spread = [planted.record(f"m{k:02d}", 1.0 - k / 40) for k in range(21)]
    assert not content(planted.board(spread))["worst_first"]


def test_the_words_of_a_page_are_those_of_the_glossary():
    """The page explains words as docs/glossary.md does, without its links and marks."""
    text = (Path(__file__).parents[1] / "docs" / "glossary.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| \*\*(.+?)\*\* \| (.+?) \|$", text, re.MULTILINE))
    for word, said in json.loads(asset("page_words.json")).items():
        plain = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", rows[word]).replace("`", "")
        assert said == plain, word


def test_a_page_shows_the_rows_and_columns_asked_for():
    """The options of the board hold for its page; ranks stay those among all."""
    records = [planted.record(f"m{k}", 0.9 - k / 10) for k in range(5)]
    board = planted.board(records)
    view = View(top=2, worst_first=True, columns=("deadpixel.weakest",))
    board.shown = [row for rows in shown_groups(board, view) for row in rows]
    found = content(board, view=view)
    assert set(found["models"]["reference"]) == {"m3", "m4"}
    (column,) = (
        n
        for n, m in zip(found["numbers"], found["metrics"], strict=True)
        if m["id"] == found["sort"]
    )
    assert sorted(column["none"]["rank"]) == [4, 5]
    assert found["worst_first"]
    assert found["columns"] == ["deadpixel.weakest"]
