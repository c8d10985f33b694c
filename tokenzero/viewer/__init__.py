"""The page of a search tree: its HTML, style and scripts as files, put together by ``tokenzero.view``.

The scripts are plain, use no library and fetch nothing. Each begins by saying what it does.
"""
