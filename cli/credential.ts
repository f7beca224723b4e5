/** `nestgate credential`: a token as kubectl wants it of a credential plugin; of a sign-in, a file, or a CI system's job. */
import { Option } from 'commander'
import type { Command } from 'commander'
import { CI_SYSTEMS, ciToken, DEFAULT_AUDIENCE, DEFAULT_VARIABLE } from './ci-token.ts'
import type { CiOptions, CiSystem } from './ci-token.ts'
import type { LoginDeps } from './login.ts'
import { claimsOf } from './login-issuer.ts'
import { currentSignIn } from './login-session.ts'
import { toJson } from './output.ts'
import type { Runner } from './program.ts'

/** The only version that is spoken; kubectl knows it since 1.22. */
export const EXEC_API_VERSION = 'client.authentication.k8s.io/v1'

interface Options extends CiOptions {
  readonly from?: CiSystem
}

/** Adds the command. */
export function addCredential(program: Command, runner: Runner, deps: LoginDeps): void {
  program
    .command('credential')
    .description('print your token as kubectl wants it of a credential plugin')
    .addOption(
      new Option(
        '--from <system>',
        'the token of this job instead, as the CI system gives it',
      ).choices(CI_SYSTEMS),
    )
    .option(
      '--audience <name>',
      `github: what the token is for (${DEFAULT_AUDIENCE}); gitlab: what it must be for`,
    )
    .option('--variable <name>', `gitlab: variable that id_tokens fills (${DEFAULT_VARIABLE})`)
    .action(async ({ from, ...options }: Options) => {
      const current =
        from === undefined ? await currentToken(deps) : await ciToken(from, options, deps)
      runner.print(toJson(execCredential(current)))
    })
}

interface CurrentToken {
  readonly token: string
  /** Seconds since the epoch; undefined where it is not known. */
  readonly expiresAt?: number | undefined
}

async function currentToken(deps: LoginDeps): Promise<CurrentToken> {
  const { url, token } = deps.settings()
  if (token !== undefined) {
    const exp = claimsOf(token)?.['exp']
    return { token, expiresAt: typeof exp === 'number' ? exp : undefined }
  }
  const { idToken, expiresAt } = await currentSignIn(url, deps)
  return { token: idToken, expiresAt }
}

/** As client-go reads it of a plugin's output. */
function execCredential({ token, expiresAt }: CurrentToken): object {
  const end =
    expiresAt === undefined
      ? {}
      : { expirationTimestamp: new Date(Math.floor(expiresAt) * 1000).toISOString() }
  return { apiVersion: EXEC_API_VERSION, kind: 'ExecCredential', status: { ...end, token } }
}
