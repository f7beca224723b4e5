/** The `Status` by which a command ends: read for the recording, and made where the session is ended by us. */
import { z } from 'zod'
import type { SessionResult } from '../../shared/recording/session-wire.ts'
import { maskText } from '../masking/detectors/masker.ts'

const MAX_TEXT_LENGTH = 1024
const EXIT_CODE = /^\d{1,10}$/

const statusSchema = z.object({
  status: z.string().optional(),
  reason: z.string().optional(),
  message: z.string().optional(),
  details: z
    .object({
      causes: z
        .array(z.object({ reason: z.string().optional(), message: z.string().optional() }))
        .nullish(),
    })
    .nullish(),
})

/**
 * What a command's status says. The exit code is in the cause `ExitCode` (client-go, remotecommand/v4.go); a success is exit code 0. A status that
 * cannot be read is a failure with its text as message.
 */
export function readStatus(text: Buffer): SessionResult {
  const read = parse(text)
  if (read === undefined) return { status: 'Failure', message: short(text.toString('utf8')) }
  const { status, reason, message, details } = read
  if (status === 'Success') return { status, exitCode: 0 }
  const code = details?.causes?.find((cause) => cause.reason === 'ExitCode')?.message ?? ''
  return {
    status: 'Failure',
    ...(EXIT_CODE.test(code) ? { exitCode: Number(code) } : {}),
    ...(reason === undefined ? {} : { reason: short(reason) }),
    ...(message === undefined ? {} : { message: short(message) }),
  }
}

function parse(text: Buffer): z.infer<typeof statusSchema> | undefined {
  try {
    const read = statusSchema.safeParse(JSON.parse(text.toString('utf8')))
    return read.success ? read.data : undefined
  } catch {
    return undefined
  }
}

/** Runtimes repeat the command that they could not run. */
function short(text: string): string {
  return maskText(text).text.slice(0, MAX_TEXT_LENGTH)
}

/** A status of ours; kubectl prints its message. */
export function failure(message: string): Buffer {
  return Buffer.from(
    JSON.stringify({
      ...{ metadata: {}, status: 'Failure', reason: 'InternalError', code: 500 },
      message: `nestgate: ${message}`,
    }),
  )
}
