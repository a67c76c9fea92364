"""The Streamlit add-on: single pictures, reviews, a look at the table. `image-analyzer app` runs it."""
