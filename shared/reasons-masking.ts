/** Refusals of masking: a part of REASONS (reasons.ts), which says what the fields are. */

export const MASKING_REASONS = {
  not_acceptable: {
    status: 406,
    sentence: 'the client takes only encodings in which secrets cannot be masked',
    remedy: 'accept application/json as well, as kubectl and client-go do',
  },
  answer_unmaskable: {
    status: 502,
    sentence: 'the answer of the API server cannot be masked, and is not passed on',
    remedy:
      'the answer is no well-formed JSON, or in an encoding that was not asked for: look at the API server that serves this kind',
  },
  placeholder_written: {
    status: 422,
    sentence: 'the request would write a placeholder in place of the value that it stands for',
    remedy:
      'leave the field out (kubectl edit, apply and patch do), or send the true value; a rule with restore lets updates keep what is hidden',
  },
  placeholder_stale: {
    status: 409,
    sentence: 'a placeholder stands for a value of another object, field or version',
    remedy: 'read the object again, and send it with its resourceVersion',
  },
  mask_oracle: {
    status: 403,
    sentence: 'the request would tell something about a value that is hidden from the caller',
    remedy:
      'leave out what compares, copies or selects by the hidden field; a rule with mask: none lets values through',
  },
  unmask_denied: {
    status: 403,
    sentence: 'no rule shows hidden values to the caller',
    remedy: 'a rule for action unmask with mask: none does, with or without approval',
  },
} as const
