/** Self-reviews on the way: what the API server says of the caller's rights, joined with what policy says (reviews/self-review.ts). */
