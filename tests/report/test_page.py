"""The page: its sections, its escaping, and what odd reports make of it."""

import re
import subprocess
import sys
from datetime import datetime, timedelta
from functools import cache
from html.parser import HTMLParser

import matplotlib
import pytest

from annspark.core.calibrate import Prediction
from annspark.core.recall import Band, Recall, Spread
from annspark.report import Cost, Leaves
from annspark.report.page import can_render, render_fragment, render_page
from tests.helpers import REPOSITORY
from tests.report.reports import make_bare_held, make_calibration, make_held, make_recall, make_rows

EVIL = "<script>alert(1)</script>"
VOID = {"meta", "br", "hr", "img", "input", "link"}


def nights(n, **changed):
    """Return what n earlier reports hold, of the n nights before."""
    last = datetime.fromisoformat(make_held()["created"])
    made = []
    for i in range(n):
        mean = 0.953 + 0.004 * ((7 * i) % 5 - 2) / 2 - (0.02 if i == n // 2 else 0)
        night = make_held(
            created=(last - timedelta(days=n - i)).isoformat(),
            recall=make_recall(mean),
            seconds={"total": 290.0 + 9 * ((5 * i) % 7), "read": 20.0},
            rows=make_rows(1_100_000 + 3_300 * i),
            **changed,
        )
        made.append(night)
    return made


@cache
def full_page(n_nights=0):
    return render_page(make_held(), nights(n_nights))


class Outline(HTMLParser):
    """What a page is made of: tags with their attributes, headings, text; fails where tags do not nest."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.ids, self.headings, self.open, self.words = [], [], [], [], []
        self.feed(page)
        self.close()
        assert not self.open
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] in (["h1"], ["h2"]):
            self.headings.append(data)
        if "style" not in self.open:
            self.words.append(data)

    def count(self, tag):
        return sum(tag == name for name, _ in self.tags)

    def charts(self):
        return [attributes["aria-label"] for tag, attributes in self.tags if tag == "svg"]


SECTIONS = {
    "Recall by popularity": {"recall": make_recall(bands=())},
    "Predicted and measured": {"calibration": None},
    "Time": {"seconds": {"total": 3.0}},
    "Leaves": {"leaves": None},
    "Cost": {"cost": None},
    "Distances by rank": {"distances": ()},
    "Dropped rows": {"rows": make_rows(5)},
    "Settings": {"settings": {}},
}


def test_the_libraries_are_there():
    assert can_render()


def test_a_full_report_has_every_section_in_order():
    outline = Outline(full_page(3))
    assert outline.headings == [
        "Passed: recall is 0.0030 above the target",
        "Recall",
        *SECTIONS,
        "Versions",
        "Cluster",
        "Trend",
    ]
    assert outline.count("svg") == 7
    assert outline.count("html") == outline.count("main") == outline.count("h1") == 1


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_without_data_is_left_out_and_no_other(section):
    outline = Outline(render_page(make_held(**SECTIONS[section]), []))
    assert outline.headings[1:] == ["Recall", *(name for name in SECTIONS if name != section), "Versions", "Cluster"]


def test_the_numbers_are_on_the_page():
    text = Outline(full_page()).text
    for shown in (
        "asked 0.9500 predicted 0.9540 0.9450 to 0.9620 measured 0.9530 0.9470 to 0.9580",
        "1,200,345 rows read, 1,200,301 of them valid; 1,200,301 users written, 3 of them with fewer than k neighbors",
        "5th percentile 0.70",
        "lost to rounding 0.12 %",
        "distances right to 2e-07",
        "below 0.5 1.2 %",
        "never 61 6.1 % 0.8100 0.7700 to 0.8500",
        "50 or more times 22 2.2 % 0.9900 0.9600 to 0.9990",
        "7.25 probes were chosen from the exact neighbors of 256 users",
        "5.2 min in all",
        "leaves 2,400 users in one, median 498 99th percentile 702 largest 1,311",
        "distances a user 5,321 copies a user 7.25 shuffled 8.6 GB",
        "null id 4 null vector with NaN 40 user-77",
        "scratch not set",
        "annspark 0.1.0 Python 3.11.7",
    ):
        assert shown in text


def test_a_missed_target_says_by_how_much():
    outline = Outline(render_page(make_held(recall=make_recall(0.92)), []))
    assert outline.headings[0] == "MISSED by 0.0300: recall is 0.9200"
    assert ("div", {"class": "missed"}) in outline.tags


def test_a_recall_below_the_target_passes_when_its_interval_reaches_it():
    outline = Outline(render_page(make_held(recall=make_recall(0.948)), []))
    assert outline.headings[0] == "Passed: recall is 0.0020 below the target, which its interval reaches"
    assert ("div", {"class": "passed"}) in outline.tags


def test_without_a_target_the_headline_is_what_was_measured():
    page = render_page(make_held(calibration=None), nights(2, calibration=None))
    outline = Outline(page)
    assert outline.headings[0] == "Measured recall: 0.9530"
    assert not {("div", "passed"), ("div", "missed")} & {(tag, found.get("class")) for tag, found in outline.tags}
    assert "asked 0" not in outline.text
    assert "predicted" not in outline.text


@pytest.mark.parametrize(("trees", "said"), [(1, "1 tree was added"), (2, "2 trees were added")])
def test_added_trees_are_told(trees, said):
    assert said in Outline(render_page(make_held(topped_up=trees, distances=()), [])).text
    assert "added" not in Outline(full_page()).text


def test_the_trend_shows_earlier_runs_and_this_one():
    outline = Outline(full_page(30))
    assert [label for label in outline.charts() if "runs" in label] == [
        "Recall of the last 31 runs",
        "Users written of the last 31 runs",
        "Total time of the last 31 runs",
    ]
    assert "2026-11-22 03:12 0.1.0 0.9530 0.9470 to 0.9580 1,200,301 5.2 min" in outline.text
    assert "The last 10 of 31 runs." in outline.text


def test_the_trend_marks_missed_runs_and_ends_somewhere():
    earlier = nights(130)
    earlier[-1]["passed"] = False
    outline = Outline(render_page(make_bare_held(), earlier))
    assert "Recall of the last 120 runs" in outline.charts()
    assert outline.text.count(" missed ") == 1 + 1  # the run's row, and the caption


def test_what_changed_since_the_run_before_is_told():
    before = nights(2)
    before[-1] |= {"version": "0.0.9", "settings": {"k": 5, "metric": "cosine", "gone": 1}}
    text = Outline(render_page(make_bare_held(), before)).text
    assert "Changed since the run before: annspark from 0.0.9 to 0.1.0 ; k from 5 to 10 ." in text
    assert "Changed since" not in Outline(full_page(2)).text


def test_hostile_strings_are_text():
    report = make_held(
        version=EVIL,
        versions={EVIL: EVIL},
        cluster={EVIL: EVIL},
        created=EVIL,
        settings={EVIL: EVIL, "k": f'" onload="{EVIL}', "style": "</style>", "math": "$\\frac{$"},
        rows=make_rows(8, read=9, dropped={EVIL: 1}, examples={EVIL: EVIL}),
        seconds={"total": 1.0, EVIL: 0.5, "$\\frac{$": 0.5, "_-->": 0.1},
    )
    before = nights(3)
    before[-1] |= {"version": EVIL, "settings": {"k": EVIL}}
    for page in (render_page(report, before), render_fragment(report)):
        outline = Outline(page)
        assert "<script" not in page
        assert not any(name.startswith("on") for _, attributes in outline.tags for name in attributes)
        assert outline.text.count(EVIL) >= 6
        assert "$\\frac{$" in outline.text
    assert f"k from {EVIL} to" in Outline(render_page(report, before)).text


def test_strings_that_are_no_utf_8_do_not_stop_the_page_from_being_written():
    assert render_page(make_bare_held(settings={"input": "caf\udce9"}), []).encode()


UNREADABLE = [
    None,
    [],
    "report",
    {},
    {"created": 5},
    {"created": EVIL, "rows": {"written": 5}},
    {"created": "0001-01-01T00:00:00+14:00", "rows": {"written": 5}},
    {"created": "2026-11-20"},
    {"created": "2026-11-20T01:00:00Z", "recall": None, "rows": {"written": "many"}, "seconds": {"total": True}},
    {"created": "2026-11-20T01:00:00Z", "recall": {"mean": float("nan")}, "rows": {"written": 10**400}, "seconds": 1},
    {"created": "2026-11-20T01:00:00Z", "recall": [], "rows": {"written": 1e308}, "seconds": {"total": float("inf")}},
]
ODD = [
    {"created": "2026-11-19T01:00:00Z", "recall": {"mean": 0.9}, "rows": [1], "settings": 7, "versions": []},
    {"created": "2026-11-18T01:00:00+09:00", "recall": {"mean": 9, "low": -1, "high": 10}, "passed": None},
    {"created": "1999-01-01", "rows": {"written": 10**12}, "seconds": {"total": 1e9}, "settings": {"k": {"a": [1]}}},
    {"created": "0001-01-01", "rows": {"written": -5}, "seconds": {"total": 0}, "version": {"a": 1}},
]


@pytest.mark.parametrize("report", UNREADABLE, ids=range(len(UNREADABLE)))
def test_an_earlier_report_that_cannot_be_read_is_skipped(report):
    alone = Outline(render_page(make_bare_held(), [report]))
    assert "Trend" not in alone.headings
    beside = Outline(render_page(make_bare_held(), [*nights(1), report]))
    assert "Recall of the last 2 runs" in beside.charts()


@pytest.mark.parametrize("report", ODD, ids=range(len(ODD)))
def test_an_odd_earlier_report_is_shown_as_far_as_it_goes(report):
    assert "Trend" in Outline(render_page(make_bare_held(), [report])).headings
    assert "Recall of the last" in str(Outline(render_page(make_bare_held(), [report, *nights(2)])).charts())


def test_what_an_earlier_report_lacks_is_left_out_of_its_chart_only():
    (partial,) = nights(1)
    del partial["seconds"]
    charts = Outline(render_page(make_bare_held(), [partial])).charts()
    assert charts[-2:] == ["Recall of the last 2 runs", "Users written of the last 2 runs"]


def test_earlier_reports_of_the_same_moment_are_drawn():
    again = make_held()
    assert "Recall of the last 3 runs" in Outline(render_page(make_bare_held(), [again, again])).charts()


@pytest.mark.parametrize("n_nights", [0, 5])
def test_the_page_asks_the_network_for_nothing(n_nights):
    page = full_page(n_nights)
    assert not re.search(r"https?://", page)
    assert not re.search(r"@import|url\((?!#)", page)
    outline = Outline(page)
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in outline.tags}
    links = [attributes["href"] for _, attributes in outline.tags if "href" in attributes]
    assert links
    assert all(link.startswith("#") for link in links)


def test_ids_are_unique_and_references_find_them():
    page = full_page(5)
    outline = Outline(page)
    assert len(set(outline.ids)) == len(outline.ids)
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', page)) <= set(outline.ids)


def test_two_reports_in_one_notebook_share_no_ids():
    one, two = (Outline(render_fragment(make_held(topped_up=trees))) for trees in (0, 1))
    assert one.ids
    assert not set(one.ids) & set(two.ids)


def test_the_page_is_the_same_every_time_and_leaves_matplotlib_alone(monkeypatch):
    before = dict(matplotlib.rcParams)
    first = render_page(make_held(), nights(4))
    assert dict(matplotlib.rcParams) == before
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    with matplotlib.rc_context({"font.size": 30, "text.color": "red", "svg.fonttype": "path"}):
        assert render_page(make_held(), nights(4)) == first


def test_colors_are_the_style_sheets():
    page = render_page(make_held(recall=make_recall(0.9)), nights(5))
    drawn = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    bare = re.sub(r"var\(--\w+, #[0-9a-f]{6}\)", "", drawn)
    assert "var(--blue" in drawn
    assert not re.search(r"(fill|stroke): *(#|black|white)", bare)
    assert "<style" not in drawn


def test_the_fragment_is_the_page_without_what_is_around_it():
    page, fragment = full_page(), render_fragment(make_held())
    inside = Outline(fragment)
    assert not {"html", "head", "body", "meta", "title", "main"} & {tag for tag, _ in inside.tags}
    assert next(tag for tag in inside.tags) == ("div", {"class": "annspark-report"})
    assert inside.headings == Outline(page).headings
    assert inside.text in Outline(page).text


def test_the_fragments_styles_reach_nothing_else():
    (sheet,) = re.findall(r"<style>(.*?)</style>", render_fragment(make_held()), re.DOTALL)
    rules = re.findall(r"([^{}]+)\{", re.sub(r"@media[^{]*\{", "", sheet))
    assert len(rules) > 20
    for rule in rules:
        assert all(part.strip().startswith(".annspark-report") for part in rule.split(",")), rule


def test_one_user_and_one_neighbor():
    report = make_held(
        rows=make_rows(1, short=1),
        recall=Recall(1, 1.0, 0.2, 1.0, 1, 1.0, 0.0, (Band(0, 0, 1, 1.0, 0.2, 1.0),)),
        calibration=make_calibration(users=1, curve=(Prediction(1, 1.0, 0.2, 1.0),), probes=1, predicted=1.0),
        distances=(Spread(1, 0.0, 0.0, 0.0),),
        leaves=Leaves(count=1, median_rows=1, p99_rows=1, max_rows=1),
        seconds={"total": 0.0, "read": 0.0},
    )
    text = Outline(render_page(report, [])).text
    assert "1 user written, 1 of them with fewer than k neighbors." in text
    assert "It was measured on 1 user;" in text
    assert "1 probe was chosen from the exact neighbors of 1 user." in text


def test_no_neighbors_at_all():
    recall = Recall(0, 1.0, 0.0, 1.0, 1, 1.0, 0.0, ())
    report = make_held(recall=recall, distances=(), calibration=make_calibration(curve=()))
    assert Outline(render_page(report, nights(1))).count("svg") == 5


def test_distances_that_are_not_finite_are_not_drawn():
    inf = float("inf")
    drawn = Outline(render_page(make_bare_held(distances=(Spread(1, 0.1, 0.2, 0.3), Spread(2, 0.1, 0.2, inf))), []))
    assert any("at rank 1," in label for label in drawn.charts())
    none = Outline(render_page(make_bare_held(distances=(Spread(1, 0.1, inf, inf),)), []))
    assert "Distances by rank" not in none.headings


def test_huge_numbers():
    huge = 10**15
    report = make_held(
        rows=make_rows(huge, dropped={"null id": huge}, examples={"null id": None}, short=huge),
        recall=make_recall(users=huge, bands=(Band(0, 0, huge, 0.9, 0.8, 0.95), Band(10**9, None, 1, 0.9, 0.8, 0.95))),
        calibration=make_calibration(probes=1e6),
        distances=tuple(Spread(r, 1e30, 2e30, 3e30) for r in range(1, 1001)),
        cost=Cost(1e12, 1e6, 10**21, 10**21),
        leaves=Leaves(count=huge, median_rows=huge, p99_rows=huge, max_rows=huge),
        seconds={"total": 1e9, "join": 1e9},
    )
    text = Outline(render_page(report, nights(2))).text
    assert "1,000,000,000,000,000 rows read" in text
    assert "1,000.0 EB" in text
    assert "277,777.8 h in all" in text


def test_the_package_works_without_the_libraries():
    code = (
        "import sys\n"
        "sys.modules |= dict.fromkeys(('jinja2', 'markupsafe', 'matplotlib'))\n"
        "import annspark.report.page\n"
        "assert not {'jinja2.environment', 'matplotlib.figure'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)


def test_can_render_asks_for_both(monkeypatch):
    for missing in ("jinja2", "matplotlib"):
        monkeypatch.setattr(
            "annspark.report.page.find_spec", lambda name, missing=missing: None if name == missing else name
        )
        assert not can_render()


def test_users_with_completed_lists_and_users_with_fewer_published_are_counted():
    text = Outline(render_page(make_bare_held(rows=make_rows(9, widened=2, restricted=3)), [])).text
    completed = "2 of them given neighbors from the whole table, as their leaves held too few"
    assert f"9 users written, 3 of them with fewer than k published, {completed}." in text
