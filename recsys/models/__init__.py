"""Networks and their losses: fusion, user encoder, taste regression and ranker."""
