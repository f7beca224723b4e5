/** Where recordings are written to: a terminal, a pipe, a file. Nothing waits in memory for a slow one. */
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { open, rename } from 'node:fs/promises'
import type { Writable } from 'node:stream'
import { messageOf } from '../shared/errors.ts'
import { CallError } from './client.ts'
import { UsageError } from './settings.ts'

/** Only its owner may read an export. */
const FILE_MODE = 0o600
/** Name of a file that is not whole yet. */
const PART = '.part'

/** The process's own output, as far as these commands need it. */
export type StandardOutput = Writable & { readonly isTTY?: boolean }

/** Takes bytes and text. */
export interface Output {
  /** Settles when there is room for more; rejects with {@link CallError} where nobody reads it any more. */
  write(piece: Uint8Array | string): Promise<void>
}

/** Standard output, byte for byte. */
export function streamOutput(stream: Writable): Output {
  let broken: Error | undefined
  stream.on('error', (error) => {
    broken = error
  })
  return {
    async write(piece) {
      if (broken !== undefined) throw new CallError(`cannot write: ${messageOf(broken)}`)
      if (stream.write(piece)) return
      await once(stream, 'drain').catch((error: unknown) => {
        throw new CallError(`cannot write: ${messageOf(error)}`)
      })
    },
  }
}

/**
 * Writes a new file that only its owner may read. It gets its name when `work` is done; what breaks off is left in `FILE.part`.
 *
 * @returns how many bytes it has
 */
export async function writeFile(
  file: string,
  work: (output: Output) => Promise<void>,
): Promise<number> {
  if (existsSync(file)) throw new UsageError('the file is there already')
  const path = file + PART
  const part = await open(path, 'w', FILE_MODE).catch((error: unknown) => {
    throw new UsageError(`cannot write: ${messageOf(error)}`)
  })
  let bytes = 0
  try {
    await work({
      async write(piece) {
        const buffer = Buffer.from(piece)
        await part.writeFile(buffer)
        bytes += buffer.length
      },
    })
    await part.sync()
  } catch (error) {
    throw new CallError(`the export is not whole, what came is in ${path}: ${messageOf(error)}`)
  } finally {
    await part.close()
  }
  await rename(path, file)
  return bytes
}
