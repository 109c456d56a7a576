"""The ledger in any order of events: flags, applies, undos, hands, and a kill for real at every step."""

import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from four_pictures import LABELS, corrections, make_four, places, put
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from killing import Killer

from utils.clean import ImageClassifierCleaner
from utils.dataset import read_dataset
from utils.errors import FieldguideError
from utils.ledger.flags import read_review, save_choices, save_flags
from utils.ledger.moves import DELETED, RESTORED, Ledger

IDS = ("a", "b", "c", "d")
SOME = st.sets(st.sampled_from(IDS), min_size=1).map(sorted)
CHOICES = [*LABELS, "Keep", "Delete"]


@pytest.fixture(scope="module")
def killer():
    with Killer() as killer:
        yield killer


def way(old: str, new: str) -> tuple[str, str, str]:
    """Return a move from place to place as corrections.csv tells it: (id, old, new)."""
    (root, label, name), (to_root, to_label, _) = old.split("/"), new.split("/")
    told = {("images", "trash"): DELETED, ("trash", "images"): RESTORED}.get((root, to_root), to_label)
    return name.removesuffix(".jpg"), label, told


def ways(before: dict[str, str], after: dict[str, str]) -> list[tuple[str, str, str]]:
    """Return the moves between two states of the folders; the contents of pictures are all different."""
    new = {content: place for place, content in after.items()}
    return [way(place, new[content]) for place, content in before.items() if new[content] != place]


def await_tick(path: Path) -> None:
    """Wait until a file touched now has another change time than `path`: a clock ticks in milliseconds."""
    probe = path.parents[2] / "clock"
    while probe.write_text("") or probe.stat().st_ctime_ns <= path.stat().st_ctime_ns:
        time.sleep(0.001)


# --- a kill at every step ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [0, 3, 1000])
@pytest.mark.parametrize("deed", ["apply", "undo", "restore"])
def test_a_kill_at_every_step_leaves_nothing_half_done(killer, tmp_path, deed, lost):
    """Killed before any step, with or without the last bytes, the next call ends as undisturbed, and nothing twice."""
    args = {"apply": [], "undo": [2], "restore": [["a", "c"]]}[deed]
    there = {"apply": {"trash/cat/a.jpg", "images/bird/c.jpg"}}.get(deed, {"images/cat/a.jpg", "images/собака/c.jpg"})
    killed = True
    for step in range(1, 100):
        project = make_four(tmp_path / str(step))
        save_flags(project, {"a": "Delete", "c": "bird" if deed == "apply" else "Delete", "d": "Keep"})
        if deed != "apply":
            Ledger(project).apply()
        rows, start = corrections(project), places(project)
        killed = killer.do(project, deed, *args, step=step, lost=lost)["killed"]
        if not killed:
            break
        # An undo takes back the last two that stand: after one that was finished, there is no more.
        getattr(Ledger(project), deed)(*args)
        now = places(project)
        assert there <= set(now)
        assert sorted(start.values()) == sorted(now.values())
        assert Counter(ways(start, now)) == Counter(corrections(project)) - Counter(rows)
        assert read_review(project) == {"d": "Keep"}
        assert not (project.data / "pending.json").exists()
    assert step > 15 and not killed


def test_what_a_hand_puts_back_after_a_kill_at_any_step_stays_there(killer, tmp_path):
    """A move of a killed run that a person reversed before the next call is not repeated by it."""
    reversed_moves = 0
    for step in range(1, 100):
        project = make_four(tmp_path / str(step))
        save_flags(project, {"a": "Delete", "c": "bird"})
        start = places(project)
        killed = killer.do(project, "apply", step=step)["killed"]
        now = {content: place for place, content in places(project).items()}
        back = {place: now[content] for place, content in start.items() if now[content] != place}
        for place, there in back.items():
            await_tick(project.data / there)
            (project.data / there).rename(project.data / place)
        reversed_moves += len(back)
        if not killed:
            break
        Ledger(project).apply()
        assert set(back) <= set(places(project)), step
    assert reversed_moves > 20


@pytest.mark.parametrize("lost", [0, 3, 1000])
def test_a_kill_while_flags_are_stored_stores_all_or_none(killer, tmp_path, lost):
    """Several flags at once are in the review or are not; those from before are there in either case."""
    for step in range(1, 100):
        project = make_four(tmp_path / str(step))
        save_flags(project, {"a": "Delete", "c": "Keep", "d": "Keep"})
        before = read_review(project)
        killed = killer.do(project, "flag", {"a": "bird", "b": "bird", "c": None}, step=step, lost=lost)["killed"]
        assert read_review(project) in ([before] if step == 1 else [before, {"d": "Keep", "a": "bird", "b": "bird"}])
        if not killed:
            break
    assert step > 4 and read_review(project) == {"d": "Keep", "a": "bird", "b": "bird"}


def test_two_that_apply_at_once_do_everything_once(killer, tmp_path):
    """Two programs that apply, flag and undo at the same time wait for each other: nothing is lost, nothing twice."""
    project = make_four(tmp_path)
    start = places(project)
    ids = [f"p{n:03}" for n in range(120)]
    for id in ids:
        put(project.images / "cat" / f"{id}.jpg", id)
    save_flags(project, dict.fromkeys(ids, "bird"))
    with Killer() as other:
        killer.start(project, "apply")
        other.start(project, "apply")
        answers = [killer.end(), other.end()]
        assert sorted(answer["done"] for answer in answers) == [0, len(ids)]
        for n, id in enumerate(ids[:40]):
            (killer, other)[n % 2].start(project, "flag", {id: "Delete"})
            if n % 2:
                answers += [killer.end(), other.end()]
    assert [answer["error"] for answer in answers] == [None] * 42
    assert read_review(project) == dict.fromkeys(ids[:40], "Delete")
    assert sorted(corrections(project)) == [(id, "cat", "bird") for id in ids]
    assert start.items() <= places(project).items()


# --- any order of events -----------------------------------------------------------------------------------------


class Events(RuleBasedStateMachine):
    """
    Four pictures and three labels; what must be is kept beside, from what the folders showed before and after.

    `logged` counts the moves that corrections.csv must hold. A move of a killed run is `unsettled` until the next
    call of the ledger; where a hand `touched` its picture meanwhile, it may be logged or not.
    """

    killer: Killer

    @initialize()
    def start(self):
        self.folder = tempfile.TemporaryDirectory()
        self.project = make_four(Path(self.folder.name))
        self.ledger = Ledger(self.project)
        self.contents = Counter(places(self.project).values())
        self.raw = self.raw_files()
        self.logged, self.unsettled, self.touched = Counter(), [], set()
        self.put_back: dict[str, str] = {}  # id → where a hand put what a killed run had moved
        self.killed = False
        self.grid, self.page = None, None  # the cleaner, and what it shows

    def teardown(self):
        if hasattr(self, "folder"):
            self.folder.cleanup()

    def raw_files(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.project.raw.rglob("*.*")}

    def hands_on(self, place: str) -> None:
        """Note that a person is at a picture."""
        await_tick(self.project.data / place)
        if self.killed:
            self.touched.add(Path(place).stem)

    def check_moves(self, before: dict[str, str], *, settled: bool) -> list[tuple[str, str, str]]:
        """Check what the ledger did to the folders, and once it has settled all, that its account is exact."""
        after = places(self.project)
        assert Counter(before.values()) == Counter(after.values()), "a picture was lost, doubled or overwritten"
        for id in IDS:
            under = [sum(place.endswith(f"/{id}.jpg") and "images" in place for place in p) for p in (before, after)]
            assert under[1] <= max(1, under[0]), f"{id} got a second label"
        made = ways(before, after)
        self.unsettled += made
        if settled:
            told = Counter(corrections(self.project))
            expected = self.logged + Counter(self.unsettled)
            for key in told | expected:
                assert told[key] == expected[key] or key[0] in self.touched, (key, told[key], expected[key])
                assert self.logged[key] <= told[key] <= expected[key] + 1
            assert not (self.project.data / "pending.json").exists()
            self.logged, self.unsettled, self.touched, self.killed = told, [], set(), False
        return made

    # --- flags ---

    def expect_flags(self, choices: dict[str, str | None], refused: dict[str, str], before: dict[str, str]) -> None:
        expected = dict(before)
        for id, choice in choices.items():
            if id in refused:
                continue
            expected.pop(id, None)
            if choice:
                own = f"images/{choice}/{id}.jpg" in places(self.project)
                expected[id] = "Keep" if own else choice
            self.put_back.pop(id, None)
        assert expected == read_review(self.project)

    @rule(id=st.sampled_from(IDS), choice=st.sampled_from([*CHOICES, None]))
    def flag(self, id, choice):
        before = read_review(self.project)
        refused = save_flags(self.project, {id: choice})
        self.expect_flags({id: choice}, refused, before)

    @rule(choices=st.dictionaries(st.sampled_from(IDS), st.sampled_from([*CHOICES, None]), min_size=2))
    def flag_many(self, choices):
        before = read_review(self.project)
        self.expect_flags(choices, save_flags(self.project, choices), before)

    @rule(choices=st.dictionaries(st.sampled_from(IDS), st.sampled_from(CHOICES)), mark=st.sampled_from(",;\t"))
    def flag_from_csv(self, choices, mark):
        before = read_review(self.project)
        lines = [f"id{mark}choice", *(f"{id}.jpg{mark}{choice}" for id, choice in sorted(choices.items()))]
        path = put(self.project.table("choices"), "\n".join(lines))
        self.expect_flags(choices, save_choices(self.project, path), before)

    @rule(choices=st.dictionaries(st.sampled_from(IDS), st.sampled_from([*CHOICES, None]), min_size=1),
          step=st.integers(1, 9), lost=st.integers(0, 60))  # fmt: skip
    def killed_while_flagging(self, choices, step, lost):
        before = read_review(self.project)
        answer = self.killer.do(self.project, "flag", choices, step=step, lost=lost)
        self.mend_review()
        after, expected = read_review(self.project), dict(before)
        for id, choice in choices.items():
            under = [label for label in LABELS if f"images/{label}/{id}.jpg" in places(self.project)]
            if choice is None:
                expected.pop(id, None)
            elif len(under) == 1:  # any other number is refused
                expected[id] = "Keep" if choice == under[0] else choice
            self.put_back.pop(id, None)
        assert after == expected or (answer["killed"] and after == before)

    def mend_review(self):
        """Do what a person is told to: end a last line that has no end. A row cut short of a field mends itself."""
        path = self.project.table("review")
        if path.exists() and (text := path.read_text()) and not text.endswith("\n") and text.count(",") % 2 == 0:
            path.write_text(text + "\n")

    # --- the cleaner, whose order follows what is decided ---

    def open_cleaner(self, missing: int) -> None:
        """Open the page, as after a restart; of some pictures nothing is known."""
        dataset = read_dataset(self.project)
        features = np.random.default_rng(len(dataset)).normal(size=(len(dataset), 3))
        features[:missing] = np.nan
        self.grid = ImageClassifierCleaner(dataset=dataset, features=features, max_n=2).widget
        self.page = self.ask_cleaner("hello")

    def ask_cleaner(self, what: str, **details) -> dict:
        """Return the answer of the page; its selection holds no picture twice, and the page in view is part of it."""
        answer, _ = self.grid.answer({"ask": what, "view": "v", "serial": 1, **details})
        assert "That did not work" not in answer["alert"]
        shown = self.grid._selected
        assert len(set(shown)) == len(shown)
        if answer["tell"] == "page":
            there = [n for n, picture in enumerate(self.grid.cleaning.pictures) if picture.label]
            assert sorted(shown) == there, "a picture was lost from the list"
        return answer

    @rule(deeds=st.lists(st.tuples(st.integers(0, 2), st.sampled_from([*CHOICES, None, "page"])), min_size=2),
          missing=st.integers(0, 4), fresh=st.booleans())  # fmt: skip
    def sit_at_the_cleaner(self, deeds, missing, fresh):
        """Turn pages and decide, on a page that is open since earlier or after the kernel was killed."""
        if fresh or self.grid is None:
            self.grid = None
            try:
                self.open_cleaner(missing)
            except FieldguideError:  # one picture under two labels
                return
        for number, choice in deeds:
            if choice == "page":
                view = {"list": "", "label": "", "side": "", "show": "", "sort": "Worst first"}
                answer = self.ask_cleaner("page", page=number, **view)
                self.page = answer if answer["tell"] == "page" else self.page
            elif self.page["cards"]:
                self.decide_on_page(number, choice)

    def decide_on_page(self, place: int, choice: str | None) -> None:
        """A choice is stored or refused as any other, and leaves the cards in view where they are."""
        keys, before = [card["key"] for card in self.page["cards"]], read_review(self.project)
        key = keys[place % len(keys)]
        answer = self.ask_cleaner("flag", keys=[key], choice=choice)
        if answer["tell"] == "page":  # files moved elsewhere
            self.page = answer
        elif answer["tell"] == "flags":
            assert [self.grid.cleaning.pictures[n].id for n in self.grid._on_page(self.page["page"])] == keys
        stored = read_review(self.project)
        assert stored | {key: None} == before | {key: None}, "another picture's flag was touched"
        if stored != before:
            self.put_back.pop(key, None)

    # --- deeds of the ledger ---

    @rule()
    def apply(self):
        before, flags, waiting = places(self.project), read_review(self.project), self.unsettled
        outcomes = {outcome.id: outcome for outcome in self.ledger.apply()}
        after = places(self.project)
        for id, place in self.put_back.items():
            assert place in after, f"{id} was moved again after a hand had put it back"
        for id, choice in flags.items():
            touched = id in self.touched or any(id == moved for moved, _, _ in waiting)
            if id in outcomes and not outcomes[id].done:
                assert outcomes[id].reason
            elif choice == "Delete":
                assert touched or not any(f"images/{label}/{id}.jpg" in after for label in LABELS)
            elif choice != "Keep":
                assert touched or f"images/{choice}/{id}.jpg" in after
        left = read_review(self.project)
        moved = {id for id, _, _ in ways(before, after) + waiting}
        for id in flags.keys() - left.keys():
            gone = not any(f"images/{label}/{id}.jpg" in before for label in LABELS)
            assert id in moved | self.touched or gone, f"the flag of {id} was lost"
        self.check_moves(before, settled=True)
        self.put_back.clear()

    @rule(n=st.integers(1, 5))
    def undo(self, n):
        moved = [id for id, _, _ in corrections(self.project)]
        again = len(set(moved)) < len(moved)  # two moves of one picture, taken back at once, look like one
        for step in [1] * n if again else [n]:
            before = places(self.project)
            self.ledger.undo(step)
            self.check_moves(before, settled=True)
        self.put_back.clear()

    @rule(ids=SOME)
    def restore(self, ids):
        before = places(self.project)
        self.ledger.restore(ids)
        self.check_moves(before, settled=True)
        self.put_back.clear()

    @precondition(lambda self: not self.killed)
    @rule(choices=st.dictionaries(st.sampled_from(IDS), st.sampled_from(CHOICES), min_size=1))
    def apply_and_undo(self, choices):
        """An undo of all that an apply did gives back the folders as they were."""
        save_flags(self.project, choices)
        before = places(self.project)
        done = sum(outcome.done for outcome in self.ledger.apply())
        self.check_moves(before, settled=True)
        if done:
            between = places(self.project)
            assert [outcome.done for outcome in self.ledger.undo(done)] == [True] * done
            assert before == places(self.project)
            self.check_moves(between, settled=True)
        self.put_back.clear()

    @rule(
        deed=st.sampled_from(["apply", "undo", "restore"]), ids=SOME, step=st.integers(1, 45), lost=st.integers(0, 90)
    )
    def kill(self, deed, ids, step, lost):
        args = {"apply": [], "undo": [len(ids)], "restore": [ids]}[deed]
        before, flags = places(self.project), read_review(self.project)
        answer = self.killer.do(self.project, deed, *args, step=step, lost=lost)
        assert answer["killed"] or answer["error"] is None
        self.killed |= answer["killed"]
        if self.killed and deed != "apply":
            self.put_back.clear()  # it may have settled, and then taken a move back that was made long before
        if deed == "apply":
            for id, place in self.put_back.items():
                assert place in places(self.project), f"{id} was moved again after a hand had put it back"
        made = self.check_moves(before, settled=not answer["killed"])
        if answer["killed"]:
            moved = {id for id, _, _ in made + self.unsettled}
            kept = read_review(self.project).keys()
            for id in flags.keys() - kept:
                gone = not any(f"images/{label}/{id}.jpg" in before for label in LABELS)
                assert id in moved | self.touched or gone, f"the flag of {id} was lost"
        else:
            self.put_back.clear()

    @rule(
        id=st.sampled_from(IDS),
        choice=st.sampled_from(["Delete", *LABELS]),
        step=st.integers(12, 24),
        back=st.booleans(),
    )
    def killed_with_a_move_made(self, id, choice, step, back):
        """What is rare by chance: a kill between rename and row, and mostly a hand that puts the picture back."""
        save_flags(self.project, {id: choice})
        self.put_back.pop(id, None)
        before = places(self.project)
        self.kill("apply", [id], step, 0)
        new = {content: place for place, content in places(self.project).items()}
        for place, content in before.items():
            if back and self.killed and new[content] != place:
                self.hands_on(new[content])
                self.rename_by_hand(new[content], place)
                self.put_back[Path(place).stem] = place

    # --- hands ---

    def some_place(self, number: int) -> str:
        there = sorted(places(self.project))
        return there[number % len(there)]

    def rename_by_hand(self, place: str, target: str) -> None:
        target = self.project.data / target
        target.parent.mkdir(parents=True, exist_ok=True)
        (self.project.data / place).rename(target)

    @rule(number=st.integers(0, 9), label=st.sampled_from(LABELS), root=st.sampled_from(["images", "trash"]))
    def move_by_hand(self, number, label, root):
        place = self.some_place(number)
        target = f"{root}/{label}/{Path(place).name}"
        if target not in places(self.project):
            self.hands_on(place)
            self.put_back.pop(Path(place).stem, None)
            self.rename_by_hand(place, target)

    @precondition(lambda self: sum(self.contents.values()) > 2)
    @rule(number=st.integers(0, 9))
    def delete_by_hand(self, number):
        place = self.some_place(number)
        self.hands_on(place)
        self.contents -= Counter([places(self.project)[place]])
        self.put_back.pop(Path(place).stem, None)
        (self.project.data / place).unlink()

    @precondition(lambda self: sum(self.contents.values()) < 8)
    @rule(id=st.sampled_from(IDS), label=st.sampled_from(LABELS), root=st.sampled_from(["images", "trash"]))
    def drop_a_namesake(self, id, label, root):
        """Take the very name that a move of a picture may need."""
        target = self.project.data / root / label / f"{id}.jpg"
        if not target.exists():
            self.number = getattr(self, "number", 0) + 1
            put(target, f"namesake {self.number}")
            self.contents[f"namesake {self.number}"] += 1
            self.touched |= {id} if self.killed else set()
            self.put_back.pop(id, None)

    # --- what is true at any time ---

    @invariant()
    def every_picture_is_there(self):
        if hasattr(self, "project"):
            assert self.contents == Counter(places(self.project).values())
            assert self.raw == self.raw_files()

    @invariant()
    def the_account_is_readable(self):
        if hasattr(self, "project"):
            assert len(corrections(self.project)) >= self.logged.total()


@pytest.mark.long
def test_any_order_of_events(killer):
    """Nothing is lost, doubled, overwritten, done twice or done against a hand, whatever happens in whatever order."""
    Events.killer = killer
    run_state_machine_as_test(
        Events,
        settings=settings(
            max_examples=100,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
