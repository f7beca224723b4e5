/** `nestgate token new`: a person's token, made here; the broker's configuration gets only its hash. */
import { createHash, randomBytes } from 'node:crypto'
import type { Command } from 'commander'
import type { Runner } from './program.ts'
import { toDetails, toJson } from './output.ts'

/** Random bytes of a token: 256 bits, so that its plain hash cannot be reversed by trying. */
const TOKEN_BYTES = 32
/** Lets secret scanners know one of our tokens when they see it. */
const TOKEN_PREFIX = 'nestgate_'

/** Adds the command. */
export function addToken(program: Command, runner: Runner): void {
  program
    .command('token')
    .description('tokens of people and pipelines')
    .command('new')
    .description('make a token; it is shown once, and stored nowhere')
    .action(() => {
      const { token, tokenSha256 } = newToken()
      runner.print(
        runner.format() === 'json'
          ? toJson({ token, tokenSha256 })
          : toDetails([
              ['token', token],
              ['tokenSha256', tokenSha256],
            ]),
      )
    })
}

/** A new token, and what the broker's configuration keeps of it. */
export function newToken(): { readonly token: string; readonly tokenSha256: string } {
  const token = TOKEN_PREFIX + randomBytes(TOKEN_BYTES).toString('base64url')
  return { token, tokenSha256: createHash('sha256').update(token).digest('hex') }
}
