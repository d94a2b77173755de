"""
What a web page has made of what is sent to it, in other processes: thumbnails, by Pillow, and sums
of CSV files, by pandas.
"""

from __future__ import annotations

from io import BytesIO, StringIO

WIDTH, HEIGHT = 1600, 1200
LINES = 20_000


def photo() -> bytes:
    """
    Make a JPEG of some hundred kilobytes, as a camera does.
    """
    from numpy import add, arange, uint8
    from numpy.random import default_rng
    from PIL import Image

    wave = add.outer(arange(HEIGHT), arange(WIDTH)) // 8
    noise = default_rng(1).integers(0, 24, (HEIGHT, WIDTH, 3))
    pixels = (wave[:, :, None] + noise).astype(uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=80)
    return file.getvalue()


def thumbnail(picture: bytes) -> bytes:
    """
    Make a small picture of a large one.
    """
    from PIL import Image

    image = Image.open(BytesIO(picture))
    image.thumbnail((256, 256))
    file = BytesIO()
    image.save(file, "JPEG")
    return file.getvalue()


def file() -> bytes:
    """
    Make a CSV file of some hundred kilobytes.
    """
    lines = [f"{number % 97},{number},{number * 0.37:.2f}" for number in range(LINES)]
    return "\n".join(["shop,number,price", *lines]).encode()


def sums(text: bytes) -> bytes:
    """
    Sum up a CSV file.
    """
    from pandas import read_csv

    table = read_csv(StringIO(text.decode()))
    return table.groupby("shop").sum().to_csv().encode()
