"""Mining: pairs to negatives that are retrieved from the corpus."""
