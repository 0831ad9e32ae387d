"""Write every page that is made of the code."""

from tests.pages import bounds, faults
from tests.pages.bounds import DOCS

PAGES = {DOCS / "limits.md": bounds.page, DOCS / "faults.md": faults.page}

if __name__ == "__main__":
    for path, page in PAGES.items():
        path.write_text(page(), encoding="utf-8")
