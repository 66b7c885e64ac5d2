"""Protocol packages of the recommender."""
