"""
README.md of the page's folder: how to publish it, and the front matter of a static Space of Hugging Face.

The fields are those of Hugging Face's Spaces configuration reference.
"""

import re

from huggingface_hub import SpaceCardData

# With these a browser lets WebAssembly use several threads. Most static hosts send none; then one thread is used.
SPACE_HEADERS = {
    "cross-origin-embedder-policy": "require-corp",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "cross-origin",
}
SPACE_README = """---
{front}---

# {title}

{verdict}

This page looks at photos in the visitor's browser. No photo leaves the visitor's device, and nothing runs on a server.

## Publish it

The folder is a whole website: any host of files will do. Publish all of it, with its subfolders.

**To try it here:** run `python -m http.server` in this folder and open <http://localhost:8000>. The page
cannot start if you open index.html as a file.

**Hugging Face, as a static Space (free):** make an account and a token that may write. In this folder run
`pip install huggingface_hub` and `hf auth login`, then these lines in Python, with your names for YOU and SPACE:

```python
from huggingface_hub import HfApi
HfApi().create_repo("YOU/SPACE", repo_type="space", space_sdk="static", exist_ok=True)
HfApi().upload_folder(repo_id="YOU/SPACE", repo_type="space", folder_path=".")
```

The lines between `---` above are for Hugging Face. They also let the page use several processor cores there, when it is
opened at its own address. Add `license:` and the licence of your model, if it is missing.

**GitHub Pages (free):** put the contents of this folder into a repository, and choose the branch under Settings, Pages.
A file may have at most 100 MB there. Push with git: GitHub's own page for uploads takes files of up to 25 MB only.

**Your own web server:** copy the folder. The server should send `.mjs` files as `text/javascript` and `.wasm` files as
`application/wasm`. The page is quicker if the server also sends these headers:

```
Cross-Origin-Opener-Policy: same-origin
Cross-Origin-Embedder-Policy: require-corp
```

A phone's browser keeps the page for use without a network only if its address begins with `https://`.

`runtime/` holds files of other makers. `runtime/NOTICE.txt` names them and their licences; it belongs to the page.
"""


def space_readme(name: str, verdict: str, licence: str | None = None) -> str:
    """
    Return README.md for the page of a model.

    Parameters
    ----------
    name : str
        What the model is called; shown as it is, whatever signs of Markdown it holds.
    verdict : str
        How good it is against guessing, in a sentence; "" where nobody measured it.
    licence : str, optional
        One of Hugging Face's identifiers, such as apache-2.0. Without it the front matter names none.
    """
    front = SpaceCardData(
        title=name, sdk="static", app_file="index.html", license=licence, pinned=False, custom_headers=SPACE_HEADERS
    ).to_yaml()
    title = re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", name)  # in Markdown a backslash makes any such sign plain
    return SPACE_README.format(front=front + "\n" * (not front.endswith("\n")), title=title, verdict=verdict)
