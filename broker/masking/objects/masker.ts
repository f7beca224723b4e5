/** Masks Kubernetes objects in a stream of JSON (docs/decisions/0010). */
import { Fault } from '../../../shared/errors.ts'
import type { JsonMasker, MaskedAnswer, MaskedFields } from '../types.ts'

/** Begins to mask an answer. */
export function createJsonMasker(answer: MaskedAnswer): JsonMasker {
  throw new Fault('answer_unmaskable', `no masker of ${answer.shape}`)
}

/** Masks a whole document. @throws Fault `answer_unmaskable` */
export function maskDocument(
  bytes: Buffer,
  answer: MaskedAnswer,
): { readonly bytes: Buffer; readonly masked: MaskedFields } {
  const masker = createJsonMasker(answer)
  const pieces = [...masker.push(bytes), ...masker.end()]
  return { bytes: Buffer.concat(pieces), masked: masker.masked }
}
