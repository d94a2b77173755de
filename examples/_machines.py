"""
The machines of the crawler's example: network namespaces with a bridge between them, or
just processes with UNIX sockets.

    namespace of the program          namespace of a machine
      bridge crawl, 10.77.0.1
        ├ veth crawl1 ──────────────── eth0, 10.77.0.11 ◀ its host listens
        ├ veth crawl2 ──────────────── eth0, 10.77.0.12 ◀
        └ veth crawl3 ──────────────── eth0, 10.77.0.13 ◀

The program itself moves into a namespace of its own first, so the network of the real
machine is never touched. Namespaces without names end with the last process in them, and
their bridges and cables with them: there is nothing to clean up, however the program ended.
"""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).parent

TOOLS = ("ip", "unshare", "nsenter")

# Seconds that a host has to end when it was asked to.
PATIENCE = 10

# Makes a network and a cable, to see whether that is allowed.
TRIAL = "ip link add crawl type bridge && ip link add crawl1 type veth peer name eth0"

# Lives in a namespace until its standard input ends; that is when the program does.
TENANT = "ip link set lo up && echo ready && exec cat"


def unshare():
    """
    The command that starts another in a network namespace of its own.
    """
    # Who is not root has to be it in there.
    return ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--"]


def namespacesAreAllowed():
    """
    Whether this machine lets us make network namespaces.
    """
    if not all(map(shutil.which, TOOLS)):
        return False
    trial = [*unshare(), "sh", "-c", TRIAL]
    return subprocess.run(trial, capture_output=True, check=False).returncode == 0


def moveIntoNamespace(argv):
    """
    Begin this program again, as the same process, in a network namespace of its own.
    """
    command = [*unshare(), sys.executable, *argv]
    os.execvp(command[0], command)


class Machine:
    """
    A machine, on which one host runs at a time.

    @ivar name: what it is called.
    @ivar dial: where its host is dialed.
    """

    def __init__(self, name, listen, dial, entry=()):
        """
        @param listen: where its host listens.
        @param entry: the command that enters the machine.
        """
        self.name = name
        self.dial = dial
        self._listen = listen
        self._entry = list(entry)
        self._host = None
        self._lifeline = None

    def start(self, universe, keyFile):
        """
        Start the host.
        """
        # It ends with this program, however that ends: it holds the other end of a pipe.
        theirs, ours = os.pipe()
        command = [*self._entry, sys.executable, "-m", "asynqueue.wire", self._listen, universe]
        command += ["--key-file", str(keyFile), "--lifeline", str(theirs)]
        self._host = subprocess.Popen(
            command,
            cwd=HERE,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs],
            # Ctrl-C is for the program alone, which then stops the hosts.
            start_new_session=True,
        )
        os.close(theirs)
        self._lifeline = ours

    def kill(self):
        """
        Have the host end as in a crash: kill -9.
        """
        self._host.send_signal(signal.SIGKILL)
        self._ended()

    def stop(self):
        """
        Have the host end in order.

        @return: its exit status, 0 if it did.
        """
        if self._host is None:
            return 0
        self._host.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._host.wait(PATIENCE)
        self._host.kill()
        return self._ended()

    def _ended(self):
        host, self._host = self._host, None
        os.close(self._lifeline)
        return host.wait()


class Sockets:
    """
    Machines that are just processes, for where nothing else is allowed.

    @ivar address: where a server for them all listens.
    """

    address = "127.0.0.1"
    inWords = "processes with UNIX sockets"

    def __init__(self, folder):
        self._folder = folder

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def machine(self, number):
        """
        One machine more.
        """
        socket = f"unix:{self._folder}/host-{number}"
        return Machine(f"host {number}", socket, socket)


class Namespaces:
    """
    Machines that have a network between them. The program is in a namespace of its own.
    """

    address = "10.77.0.1"
    inWords = "network namespaces, with a bridge between them"

    def __init__(self):
        self._tenants = []

    def __enter__(self):
        ip("link", "set", "lo", "up")
        ip("link", "add", "crawl", "type", "bridge")
        ip("address", "add", f"{self.address}/24", "dev", "crawl")
        ip("link", "set", "crawl", "up")
        return self

    def __exit__(self, *exception):
        for tenant in self._tenants:
            tenant.communicate()

    def machine(self, number):
        """
        One machine more, which stays when its host is killed.
        """
        tenant = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", TENANT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._tenants.append(tenant)
        if tenant.stdout.readline() != b"ready\n":
            raise RuntimeError(f"there is no namespace for machine {number}")
        cable = f"crawl{number}"
        peer = ("peer", "name", "eth0", "netns", str(tenant.pid))
        ip("link", "add", cable, "type", "veth", *peer)
        ip("link", "set", cable, "master", "crawl", "up")
        address = f"10.77.0.{10 + number}"
        entry = ["nsenter", f"--target={tenant.pid}", "--net", "--"]
        ip("address", "add", f"{address}/24", "dev", "eth0", entry=entry)
        ip("link", "set", "eth0", "up", entry=entry)
        return Machine(
            f"host {number}", f"tcp:4000:interface={address}", f"tcp:{address}:4000", entry
        )


def ip(*words, entry=()):
    """
    Say something to ip(8).
    """
    subprocess.run([*entry, "ip", *words], check=True)
