"""Groups of classes for a confusion matrix that has fewer rows than there are classes."""

from __future__ import annotations

from collections.abc import Mapping

# A group holds at most this share of the classes. All groups but one are more than half full, so that there
# are at most 2 * 19 + 1 of them.
SMALLEST_PART = 19


def grouped(n_classes: int, counts: Mapping[tuple[int, int], int], most: int) -> list[list[int]]:
    """Each class alone, or, where there are more than `most` (at least 39), in at most so many groups.

    The two classes that are confused most often come into one group, then the next two, as long as a group
    stays small; groups that are left small are joined in the classes' order. A group begins with its first
    class.

    >>> groups = grouped(60, {(3, 50): 9, (50, 3): 1, (7, 7): 5}, 40)
    >>> len(groups), [group for group in groups if 3 in group][0][:2]
    (15, [0, 1])
    """
    if n_classes <= most:
        return [[k] for k in range(n_classes)]
    largest = -(-n_classes // SMALLEST_PART)
    group_of = {k: [k] for k in range(n_classes)}
    pairs: dict[tuple[int, int], int] = {}
    for (label, answer), count in counts.items():
        if label != answer:
            pair = min(label, answer), max(label, answer)
            pairs[pair] = pairs.get(pair, 0) + count
    for (a, b), _ in sorted(pairs.items(), key=lambda each: (-each[1], each[0])):
        first, second = group_of[a], group_of[b]
        if first is not second and len(first) + len(second) <= largest:
            first.extend(second)
            for k in second:
                group_of[k] = first
    return sorted(sorted(group) for group in _packed(group_of, largest))


def _packed(group_of: Mapping[int, list[int]], largest: int) -> list[list[int]]:
    """Small groups in larger ones: the largest first, each where it fits first."""
    groups = {id(group): group for group in group_of.values()}
    packed: list[list[int]] = []
    for group in sorted(groups.values(), key=lambda each: (-len(each), min(each))):
        room = next((each for each in packed if len(each) + len(group) <= largest), None)
        if room is None:
            packed.append(list(group))
        else:
            room.extend(group)
    return packed
