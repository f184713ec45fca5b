"""The Hub: data set folders, their cards, and publishing both."""
