"""Step-by-step word problems with checkable answers: five kinds, numbers below 100.

The prompt is a line `Problem: ...` and the word `Solution:`; short explicit steps follow, and the
last line is `Answer: N`. Everything is drawn from the `random.Random` that is passed in.

The train and held-out sets are split by a hash of the prompt, so no prompt is ever in both.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from random import Random

KINDS = ("shopping", "collecting", "sharing", "comparing", "rates")
HELD_OUT_BUCKETS = 32  # one prompt in 32 belongs to the held-out set

NAMES = (
    "Ada Amir Anna Ben Cara Carlos Chen Clara Dana David Elena Emil Eva Felix Fatima George "
    "Grace Hana Hugo Ida Ines Ivan Jack Jana Kai Karim Lena Leo Lina Lucas Maria Maya Mina "
    "Nina Noah Nora Omar Oscar Paul Petra Priya Rosa Ruth Sam Sara Tara Theo Tom Vera Yuki"
).split()
GOODS = (
    "apples bags balls bells books boxes brushes buttons cakes candles cards chairs cups "
    "dolls eggs flags forks hats keys kites lamps lemons maps masks mugs oranges pears "
    "pencils pens pies plates ribbons ropes rulers scarves socks spoons tickets toys vases"
).split()
SMALL_THINGS = (
    "acorns beads buttons cards coins corks feathers flowers leaves marbles nuts pebbles "
    "photos pins seeds shells stamps stars stickers stones"
).split()
CONTAINERS = "bags baskets boxes bowls crates jars packs sacks trays tins".split()
GROUPS = "friends children cousins players pupils neighbours teams guests".split()


@dataclass(frozen=True)
class Problem:
    """One problem: `prompt` ends with `Solution:`, `solution` ends with the answer's line."""

    kind: str
    prompt: str
    solution: str
    answer: int


def _two(rng: Random, words: list[str]) -> tuple[str, str]:
    first, second = rng.sample(words, 2)
    return first, second


def _shopping(rng: Random) -> tuple[str, list[str], int] | None:
    name = rng.choice(NAMES)
    first, second = _two(rng, GOODS)
    count_1, count_2 = rng.randint(2, 9), rng.randint(2, 9)
    price_1, price_2 = rng.randint(2, 9), rng.randint(2, 9)
    cost_1, cost_2 = count_1 * price_1, count_2 * price_2
    total = cost_1 + cost_2
    if total > 95:
        return None
    buys = rng.choice(
        (
            f"{name} buys {count_1} {first} at {price_1} coins each and {count_2} {second} at {price_2} coins each.",
            f"At the market {name} picks {count_1} {first} and {count_2} {second}. The {first} "
            f"cost {price_1} coins each and the {second} cost {price_2} coins each.",
            f"One of the {first} costs {price_1} coins and one of the {second} costs {price_2} "
            f"coins. {name} takes {count_1} {first} and {count_2} {second}.",
        )
    )
    steps = [
        f"The {first} cost {count_1} * {price_1} = {cost_1} coins.",
        f"The {second} cost {count_2} * {price_2} = {cost_2} coins.",
        f"Together they cost {cost_1} + {cost_2} = {total} coins.",
    ]
    if rng.random() < 0.5:
        question = rng.choice((f"How many coins does {name} pay?", f"How many coins does {name} spend in all?"))
        return f"{buys} {question}", steps, total
    paid = rng.randint(total + 1, 99)
    question = rng.choice(
        (
            f"{name} pays with {paid} coins. How many coins come back?",
            f"{name} had {paid} coins before. How many coins are left?",
        )
    )
    steps.append(f"From {paid} coins there are {paid} - {total} = {paid - total} coins left.")
    return f"{buys} {question}", steps, paid - total


# (what the problem says, what the step says, sign)
_EVENTS = (
    ("{name} finds {n} more", "finding {n}", 1),
    ("{name} buys {n} more", "buying {n}", 1),
    ("a friend brings {n} more", "getting {n}", 1),
    ("{name} gives away {n}", "giving away {n}", -1),
    ("{name} loses {n}", "losing {n}", -1),
    ("{name} sells {n}", "selling {n}", -1),
)


def _collecting(rng: Random) -> tuple[str, list[str], int] | None:
    name, thing = rng.choice(NAMES), rng.choice(SMALL_THINGS)
    have = rng.randint(11, 70)
    opening = rng.choice(
        (
            f"{name} has {have} {thing}.",
            f"There are {have} {thing} in the box of {name}.",
            f"In the morning {name} counts {have} {thing}.",
        )
    )
    steps = [f"{name} starts with {have} {thing}."]
    told = []
    for said, done, sign in rng.sample(_EVENTS, rng.randint(2, 4)):
        n = rng.randint(2, 25)
        after = have + sign * n
        if not 1 <= after <= 99:
            return None
        told.append(said.format(name=name, n=n))
        symbol = "+" if sign > 0 else "-"
        steps.append(f"After {done.format(n=n)} there are {have} {symbol} {n} = {after} {thing}.")
        have = after
    story = ", then ".join(told)
    question = rng.choice((f"How many {thing} does {name} have now?", f"How many {thing} are there in the end?"))
    return f"{opening} {story[0].upper()}{story[1:]}. {question}", steps, have


def _sharing(rng: Random) -> tuple[str, list[str], int] | None:
    name, thing = rng.choice(NAMES), rng.choice(SMALL_THINGS)
    container, group = rng.choice(CONTAINERS), rng.choice(GROUPS)
    boxes, per_box = rng.randint(2, 9), rng.randint(2, 9)
    people, share = rng.randint(2, 9), rng.randint(2, 9)
    packed, total = boxes * per_box, people * share
    if abs(total - packed) > 30 or total == packed:
        return None
    opening = rng.choice(
        (
            f"{name} has {boxes} {container} with {per_box} {thing} each",
            f"{name} opens {boxes} {container}, each with {per_box} {thing},",
        )
    )
    steps = [f"The {container} hold {boxes} * {per_box} = {packed} {thing}."]
    if total > packed:
        more = total - packed
        change = f"and finds {more} more."
        steps.append(f"With {more} more there are {packed} + {more} = {total} {thing}.")
    else:
        fewer = packed - total
        change = f"and keeps {fewer} aside."
        steps.append(f"Without {fewer} there are {packed} - {fewer} = {total} {thing}.")
    asked = rng.choice(
        (
            f"{people} {group} then get equal shares. How many {thing} does each get?",
            f"Then {people} {group} share them equally. How many {thing} are there for each?",
        )
    )
    steps.append(f"Each of the {people} {group} gets {total} / {people} = {share} {thing}.")
    return f"{opening} {change} {asked}", steps, share


def _relation(rng: Random, before: int) -> tuple[str, str, int]:
    """How one count follows from the one before: (words, sum, result)."""
    way = rng.randrange(4)
    if way == 0:
        n = rng.randint(2, 20)
        return f"{n} more than", f"{before} + {n}", before + n
    if way == 1:
        n = rng.randint(2, 20)
        return f"{n} fewer than", f"{before} - {n}", before - n
    if way == 2:
        return "twice as many as", f"2 * {before}", 2 * before
    return "three times as many as", f"3 * {before}", 3 * before


def _comparing(rng: Random) -> tuple[str, list[str], int] | None:
    first, second, third = rng.sample(NAMES, 3)
    thing = rng.choice(SMALL_THINGS)
    count_1 = rng.randint(3, 30)
    words_2, sum_2, count_2 = _relation(rng, count_1)
    words_3, sum_3, count_3 = _relation(rng, count_2)
    if not (1 <= count_2 <= 60 and 1 <= count_3 <= 99):
        return None
    facts = [
        f"{first} has {count_1} {thing}.",
        f"{second} has {words_2} {first}.",
        f"{third} has {words_3} {second}.",
    ]
    if rng.random() < 0.3:
        rng.shuffle(facts)
    steps = [
        f"{first} has {count_1} {thing}.",
        f"{second} has {sum_2} = {count_2} {thing}.",
        f"{third} has {sum_3} = {count_3} {thing}.",
    ]
    answer, question = count_3, f"How many {thing} does {third} have?"
    if rng.random() < 0.5:
        pair = count_1 + count_2
        answer = pair + count_3
        if answer > 99:
            return None
        question = rng.choice((f"How many {thing} do all three have?", f"How many {thing} do they have together?"))
        steps.append(f"{first} and {second} have {count_1} + {count_2} = {pair} {thing}.")
        steps.append(f"All three have {pair} + {count_3} = {answer} {thing}.")
    return f"{' '.join(facts)} {question}", steps, answer


# (subject, verb, unit, period, what the whole is called)
_RATES = (
    ("A cyclist", "rides", "miles", "hours", "The trip is {n} miles long."),
    ("A boat", "sails", "miles", "hours", "The trip is {n} miles long."),
    ("A reader", "reads", "pages", "days", "The book has {n} pages."),
    ("A painter", "paints", "doors", "days", "The house has {n} doors."),
    ("A baker", "bakes", "cakes", "hours", "The order is for {n} cakes."),
    ("A farmer", "plants", "trees", "weeks", "The field needs {n} trees."),
)


def _rates(rng: Random) -> tuple[str, list[str], int] | None:
    subject, verb, unit, period, whole = rng.choice(_RATES)
    speed_1, speed_2 = rng.randint(2, 12), rng.randint(2, 12)
    time_1, time_2 = rng.randint(2, 8), rng.randint(2, 8)
    done_1, done_2 = speed_1 * time_1, speed_2 * time_2
    done = done_1 + done_2
    if done > 95:
        return None
    one = period[:-1]
    story = rng.choice(
        (
            f"{subject} {verb} {speed_1} {unit} each {one} for {time_1} {period}, and then "
            f"{speed_2} {unit} each {one} for {time_2} {period}.",
            f"For {time_1} {period} {subject.lower()} {verb} {speed_1} {unit} each {one}. For the "
            f"next {time_2} {period} it is {speed_2} {unit} each {one}.",
        )
    )
    steps = [
        f"In the first {time_1} {period} it is {time_1} * {speed_1} = {done_1} {unit}.",
        f"In the next {time_2} {period} it is {time_2} * {speed_2} = {done_2} {unit}.",
        f"In all it is {done_1} + {done_2} = {done} {unit}.",
    ]
    if rng.random() < 0.5:
        return f"{story} How many {unit} is that in all?", steps, done
    size = rng.randint(done + 1, 99)
    told = whole.format(n=size)
    steps.insert(0, told)
    steps.append(f"That leaves {size} - {done} = {size - done} {unit}.")
    return f"{told} {story} How many {unit} are left?", steps, size - done


_MAKERS = {
    "shopping": _shopping,
    "collecting": _collecting,
    "sharing": _sharing,
    "comparing": _comparing,
    "rates": _rates,
}


def is_held_out(prompt: str) -> bool:
    """True for the prompts that training never sees."""
    return zlib.crc32(prompt.encode()) % HELD_OUT_BUCKETS == 0


def make_problem(rng: Random, kind: str | None = None, held_out: bool = False) -> Problem:
    """Draws one problem of the training set, or of the held-out set."""
    kind = kind or rng.choice(KINDS)
    while True:
        made = _MAKERS[kind](rng)
        if made is None:
            continue
        text, steps, answer = made
        prompt = f"Problem: {text}\nSolution:"
        if is_held_out(prompt) == held_out:
            solution = "".join(f"\n{step}" for step in steps) + f"\nAnswer: {answer}"
            return Problem(kind, prompt, solution, answer)


def read_answer(text: str) -> int | None:
    """The number on the last `Answer:` line, or None."""
    found = re.findall(r"^Answer: (-?\d+)$", text, flags=re.MULTILINE)
    return int(found[-1]) if found else None


def wrong_sums(text: str) -> list[str]:
    """Every `a op b = c` in `text` that is false."""
    apply = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "/": int.__floordiv__}
    wrong = []
    for left, op, right, result in re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)", text):
        if op == "/" and int(right) == 0 or apply[op](int(left), int(right)) != int(result):
            wrong.append(f"{left} {op} {right} = {result}")
    return wrong


def main() -> None:
    """Prints one problem of each kind."""
    rng = Random(0)
    for kind in KINDS:
        problem = make_problem(rng, kind)
        assert read_answer(problem.solution) == problem.answer
        print(f"[{kind}]\n{problem.prompt}{problem.solution}\n")


if __name__ == "__main__":
    main()
