"""
What the hosts of the crawler's example do: this is all that they know of it.

    python -m asynqueue.wire tcp:4000:interface=127.0.0.1 _fetcher.Fetcher

(in this folder) is such a host.
"""

from collections import Counter
from html.parser import HTMLParser
from urllib.parse import urldefrag, urljoin

from twisted.web.client import Agent, HTTPConnectionPool, readBody

from asynqueue import WireWorkerUniverse
from asynqueue.reactors import theReactor


class Fetcher(WireWorkerUniverse):
    """
    The methods that can be called on a host.
    """

    def __init__(self, wireServer=None):
        super().__init__(wireServer)
        self._agent = None

    async def fetch(self, address):
        """
        Fetch a page. It waits in the reactor of the host, which does other things
        meanwhile.

        @return: its words, each with how often it is there, and the addresses it leads to.
        @raise LookupError: there is no such page.
        """
        answer = await self._theAgent().request(b"GET", address.encode("ascii"))
        body = await readBody(answer)
        if answer.code != 200:
            raise LookupError(f"{address}: {answer.code} {answer.phrase.decode()}")
        reader = Reader(address)
        reader.feed(body.decode())
        reader.close()
        return dict(reader.words), reader.links

    def _theAgent(self):
        # Not before it is needed: the queue has an instance of this, too.
        if self._agent is None:
            reactor = theReactor()
            self._agent = Agent(reactor, pool=HTTPConnectionPool(reactor))
        return self._agent


class Reader(HTMLParser):
    """
    Finds the words and the links of a page.
    """

    def __init__(self, address):
        super().__init__()
        self.words = Counter()
        self.links = []
        self._address = address
        self._isText = False

    def handle_starttag(self, tag, attrs):
        self._isText = tag == "p"
        target = dict(attrs).get("href")
        if tag == "a" and target:
            self.links.append(urldefrag(urljoin(self._address, target)).url)

    def handle_endtag(self, tag):
        self._isText = False

    def handle_data(self, data):
        if self._isText:
            self.words.update(data.split())
