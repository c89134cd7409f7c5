"""The parts that pages are made of, each a function or two that draw something with Streamlit.

`frame` is on every page. `plain_text` is below all others: it draws names and messages as text, which
Streamlit would read as Markdown.
`grid` (with the viewer), `photo_facts`, `filters` and `query_picker` show photos and keep what is asked in
the page's address (`page_address`, `photo_address`); `file_manager` shows a file where it lies;
`studio` is where a mask is painted and its guess shown; `job_status` follows long jobs, `training_run` and
`loss_chart` trainings; `adapt_report`, `spaces` and `tags` show what the catalogue holds of these. Components
take the open `Library` from `server.session`, and never import a page.
"""
