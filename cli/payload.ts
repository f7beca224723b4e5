/** `nestgate payload`: a captured body, by the hash that an entry has under `payload`. */
import { createHash } from 'node:crypto'
import type { Command } from 'commander'
import { capturedPayloadSchema } from '../shared/wire.ts'
import { CallError } from './client.ts'
import { plain, toJson } from './output.ts'
import type { Runner } from './program.ts'
import { UsageError } from './settings.ts'

/** Adds the command. It believes the broker no content that has another hash. */
export function addPayload(program: Command, runner: Runner): void {
  program
    .command('payload')
    .description('show a captured body, masked; reading is itself recorded (role auditor)')
    .argument('<sha256>', 'the hash in the entry: payload.sha256')
    .action((sha256: string) => {
      if (!/^[0-9a-f]{64}$/.test(sha256))
        throw new UsageError('SHA256 must be 64 lower-case hex digits')
      return runner.call(async (client, format) => {
        const payload = await client.get(capturedPayloadSchema, `v1/audit/payloads/${sha256}`)
        if (createHash('sha256').update(payload.content).digest('hex') !== sha256)
          throw new CallError('what the broker sent has another hash than the entry')
        return format === 'json' ? toJson(payload) : plain(payload.content)
      })
    })
}
