"""
Calls from a folder: each file that appears there is a call, and its outcome is written beside it.

Run it with a folder to serve it until it is interrupted. A file NAME.call there, such as
{"call": "math.sqrt", "arguments": [2]}, is answered by NAME.result. Give a file its name when it
is complete. A call that has no outcome when the program ends is made by the next one.
"""

import json
import sys
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.internet.task import LoopingCall, deferLater, react

from asynqueue import ProcessQueue, QueueRunError
from asynqueue.intake import Call, Intake, IntakeDelegate

# Whoever may write into the folder may have functions of these modules called, and no others.
MODULES = {"math", "statistics"}


class FolderSource(IntakeDelegate):
    def __init__(self, queue, folder):
        self.folder = folder
        self.intake = Intake(queue, self)

    def look(self):
        """
        Take as many calls as the queue wants now, the first by name.
        """
        for path in sorted(self.folder.glob("*.call")) if self.intake.wanted else ():
            if path not in self.intake and not path.with_suffix(".result").exists():
                try:
                    self.intake.make(path, callOf(**json.loads(path.read_text())))
                except Exception as error:
                    # Anything may stand in a file.
                    self.tell(path, failed=repr(error))
            if not self.intake.wanted:
                break

    def callReturned(self, path, value):
        self.tell(path, returned=value)
        self.look()

    def callFailed(self, path, failure):
        # What the queue was shut down before is no outcome.
        if not failure.check(QueueRunError):
            self.tell(path, failed=failure.getErrorMessage())
            self.look()

    def tell(self, path, **outcome):
        try:
            text = json.dumps(outcome)
        except Exception as error:
            # Not every value can be written as JSON.
            text = json.dumps({"failed": repr(error)})
        half = path.with_suffix(".half")
        half.write_text(text)
        half.rename(path.with_suffix(".result"))


def callOf(call, arguments):
    module, _, name = call.partition(".")
    if module not in MODULES:
        raise ValueError(f"{module!r} is none of the modules that may be used: {MODULES}")
    return Call(getattr(import_module(module), name), arguments)


async def serve(reactor, folder):
    await LoopingCall(FolderSource(ProcessQueue(2), Path(folder)).look).start(0.05)


async def main(reactor):
    with TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(20):
            text = json.dumps({"call": "math.factorial", "arguments": [number]})
            (folder / f"{number:02}.call").write_text(text)
        (folder / "20.call").write_text('{"call": "os.remove", "arguments": ["everything"]}')
        queue = ProcessQueue(2)
        looking = LoopingCall(FolderSource(queue, folder).look)
        looking.start(0.05)
        while len(results := sorted(folder.glob("*.result"))) < 21:
            await deferLater(reactor, 0.01)
        looking.stop()
        await queue.shutdown()
        outcomes = [json.loads(result.read_text()) for result in results]
        print("20! =", outcomes[19]["returned"] * 20)
        print(outcomes[20]["failed"])
        assert outcomes[19]["returned"] == 121645100408832000


if __name__ == "__main__":
    react(serve if sys.argv[1:] else main, sys.argv[1:])
