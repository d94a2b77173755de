"""
The web site of the crawler's example: as large as one wants, the same every time, and as
slow as the web is.
"""

import random
from collections import Counter

from twisted.internet.task import deferLater
from twisted.web.resource import NoResource, Resource
from twisted.web.server import NOT_DONE_YET

WORDS = (  # noqa: SIM905  # sixty lines would not say it better
    "apple basket bread bridge candle castle cloud copper corner cotton desert engine farmer"
    " feather flower forest garden ghost hammer harbor honey island kettle ladder lantern"
    " letter market meadow mirror morning mountain needle orchard paper pepper pillow pocket"
    " rabbit river saddle shadow silver spider spring stone storm summer sugar table thunder"
    " tower valley village wagon water whisper window winter wolf yellow"
).split()

# The common ones are as much more common as in any language (Zipf's law).
WEIGHTS = [1 / (rank + 1) for rank in range(len(WORDS))]

WORDS_PER_PAGE = 40

# After so many seconds a page is there.
QUICKEST, SLOWEST = 0.04, 0.12

# Each of so many pages has a link that leads nowhere.
DEAD_EVERY = 50


def wordsOf(number):
    """
    The text of a page.
    """
    return random.Random(number).choices(WORDS, WEIGHTS, k=WORDS_PER_PAGE)


def linksOf(number, pages):
    """
    Where a page leads: to two pages by which all are reached, and to some others.
    """
    near = [page for page in (2 * number + 1, 2 * number + 2) if page < pages]
    far = random.Random(-number).sample(range(pages), k=min(4, pages))
    links = [f"/page/{page}" for page in near + far]
    if number % DEAD_EVERY == 0:
        links.append(f"/nothing/{number}")
    return links


def deadLinks(pages):
    """
    How many links lead nowhere.
    """
    return len(range(0, pages, DEAD_EVERY))


def indexOf(pages):
    """
    What the crawler should find: each word with the numbers of its pages, and how often
    it stands there.
    """
    index = {}
    for number in range(pages):
        for word, count in Counter(wordsOf(number)).items():
            index.setdefault(word, {})[f"/page/{number}"] = count
    return index


class WebSite(Resource):
    """
    The root of the site.

    @ivar requests: how many there were.
    """

    def __init__(self, reactor, pages):
        super().__init__()
        self.requests = 0
        self._reactor = reactor
        self._pages = pages
        self._chance = random.Random(0)

    def getChild(self, name, request):
        self.requests += 1
        number = request.postpath[0] if request.postpath else b""
        if name == b"page" and number.isdigit() and int(number) < self._pages:
            request.postpath = []
            seconds = self._chance.uniform(QUICKEST, SLOWEST)
            return Page(self._reactor, int(number), self._pages, seconds)
        return NoResource()


class Page(Resource):
    """
    A page, which takes its time.
    """

    isLeaf = True

    def __init__(self, reactor, number, pages, seconds):
        super().__init__()
        self._reactor = reactor
        self._number = number
        self._pages = pages
        self._seconds = seconds

    def render_GET(self, request):
        waiting = deferLater(self._reactor, self._seconds, self._answer, request)
        # Whoever asked may be gone by then: one of the hosts will be.
        request.notifyFinish().addErrback(lambda failure: waiting.cancel())
        waiting.addErrback(lambda failure: None)
        return NOT_DONE_YET

    def _answer(self, request):
        links = linksOf(self._number, self._pages)
        anchors = " ".join(f'<a href="{link}">more</a>' for link in links)
        text = f"<p>{' '.join(wordsOf(self._number))}</p>\n<nav>{anchors}</nav>"
        title = f"<title>Page {self._number}</title>"
        request.setHeader("content-type", "text/html; charset=utf-8")
        request.write(f"<!doctype html>\n{title}\n{text}\n".encode())
        request.finish()
