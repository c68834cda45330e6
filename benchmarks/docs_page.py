"""Tables between the marks of a page of the docs: what the scores write."""

from pathlib import Path


def put_table(page: Path, mark: str, text: str) -> None:
    """Replace what stands between the comments ``mark`` and ``end of mark``."""
    begin, end = f"<!-- {mark} -->\n", f"\n<!-- end of {mark} -->"
    head, _, rest = page.read_text().partition(begin)
    page.write_text(head + begin + text + end + rest.partition(end)[2])
