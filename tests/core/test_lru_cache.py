"""The bounded memory: what goes first, by number and by bytes, and that many threads may use it at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from daam_core.lru_cache import LRUCache


def test_what_was_not_asked_for_the_longest_goes_first() -> None:
    memory: LRUCache[str] = LRUCache(2, 100, len)
    first, second = memory.keep("one"), memory.keep("two")
    assert memory.find(first) == "one"
    third = memory.keep("three")
    assert memory.find(second) is None
    assert (memory.find(first), memory.find(third)) == ("one", "three")
    assert memory.values() == ["one", "three"]


def test_bytes_bound_it_too_and_the_newest_stays_whatever_it_takes() -> None:
    memory: LRUCache[str] = LRUCache(10, 6, len)
    names = [memory.keep(text) for text in ("abc", "def", "g")]
    assert [memory.find(name) for name in names] == [None, "def", "g"]
    large = memory.keep("much too large")
    assert memory.values() == ["much too large"]
    assert memory.find(large) == "much too large"


def test_a_value_is_found_by_what_it_is_and_stays_then() -> None:
    memory: LRUCache[str] = LRUCache(2, 100, len)
    first, second = memory.keep("one"), memory.keep("two")
    assert memory.named(lambda text: text == "one") == first
    assert memory.named(lambda text: text == "three") is None
    memory.keep("three")
    assert memory.find(first) == "one"
    assert memory.find(second) is None


def test_a_name_given_again_holds_the_new_value() -> None:
    memory: LRUCache[str] = LRUCache(3, 100, len)
    assert memory.keep("one", "name") == "name"
    memory.keep("two", "name")
    assert memory.values() == ["two"]


def test_names_differ_and_threads_do_not_disturb_each_other() -> None:
    memory: LRUCache[int] = LRUCache(50, 10**9, lambda _: 1)
    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(memory.keep, range(400)))
        assert len(set(names)) == 400
        found = list(pool.map(memory.find, names))
    assert min(map(len, names)) >= 16
    assert sorted(memory.values()) == sorted(value for value in found if value is not None)
    assert len(memory.values()) == 50
