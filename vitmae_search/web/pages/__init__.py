"""The app's pages, one file each: Search, Reconstructions, Library, Training and Plugins.

`server/main.py` lists them with their titles and addresses. Streamlit runs a page's file as a script, anew
for each change that a visitor makes, so each calls its `page` function below `if __name__ == "__main__"`.
What more than one page shows is in `components`. A constant here has no string below it: Streamlit would
show that.
"""
