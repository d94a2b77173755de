"""
Parallel work in a plain script: no reactor, and no more than functions.

Primes are counted in parts, which is a map; and the words of many texts are counted,
by an exchange that adds up what comes in whatever order.
"""

from collections import Counter

from asynqueue.exchange import Exchange, MakeReusable, get_number_of_cores, pmap

LIMIT = get_number_of_cores()

STEP = 20_000

TEXTS = {
    "Zen": "simple is better than complex complex is better than complicated",
    "Hamlet": "to be or not to be that is the question",
    "rose": "a rose is a rose is a rose",
}


def countPrimes(start):
    """
    How many primes there are from here to the next part.
    """
    return sum(
        number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))
        for number in range(start, start + STEP)
    )


def countWords(title):
    if title not in TEXTS:
        raise LookupError(f"no text is called {title}")
    return Counter(TEXTS[title].split())


class Words(Exchange):
    """
    Adds up the words of all texts.
    """

    def __init__(self, **options):
        super().__init__(**options)
        self.words = Counter()
        self.failures = []

    def store_data(self, channel):
        try:
            self.words += channel.receive()
        except LookupError as error:
            # What was raised there is raised here.
            self.failures.append(str(error))


def main():
    parts = pmap(countPrimes, range(0, 5 * STEP, STEP), limit=LIMIT)
    for index, primes in enumerate(parts):
        print(f"{primes:5} primes from {index * STEP:,}")
    print(f"{sum(parts):5} primes below {5 * STEP:,}\n")
    assert sum(parts) == 9592

    # Few processes, and many calls of each.
    exchange = Words(limit=LIMIT, reuse=1)
    count = exchange.manage(MakeReusable(countWords))
    for title in [*TEXTS, "Moby Dick"] * 5:
        count(title)
    exchange.finish()
    print("words:", *(f"{word} {number}" for word, number in exchange.words.most_common(4)))
    print("failures:", *sorted(set(exchange.failures)))
    assert exchange.words["rose"] == 15
    assert len(exchange.failures) == 5


if __name__ == "__main__":
    main()
