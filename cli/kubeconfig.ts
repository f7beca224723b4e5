/** A kubeconfig for clients that call the broker themselves, as a pure function. TLS is always verified, and no token stands in it. */
import { stringify } from 'yaml'
import type { CiSystem } from './ci-token.ts'
import { EXEC_API_VERSION } from './credential.ts'

/** Whom a kubeconfig is for. */
export const AUDIENCES = ['person', 'ci', 'agent'] as const
/** What happens with a request that is held: the client waits for it, or is told to come back. */
export const APPROVALS = ['wait', 'return'] as const

/** How its user proves who they are. */
export type KubeconfigUser =
  | { readonly kind: 'person' }
  | {
      readonly kind: 'ci'
      readonly system: CiSystem
      readonly audience?: string
      readonly variable?: string
    }
  /** @see tokenFile - absolute; kubectl reads it again as it changes */
  | { readonly kind: 'agent'; readonly tokenFile: string }

/** What a kubeconfig is made of. */
export interface KubeconfigInputs {
  /** https, without trailing slash. */
  readonly broker: string
  readonly cluster: string
  readonly approval: (typeof APPROVALS)[number]
  /** PEM; without it the client's own authorities count. */
  readonly ca?: string
  readonly user: KubeconfigUser
}

/** The text of the file. */
export function kubeconfig({ broker, cluster, approval, ca, user }: KubeconfigInputs): string {
  const name = `nestgate-${cluster}`
  const server = `${broker}${approval === 'return' ? '/return' : ''}/clusters/${cluster}`
  const trust =
    ca === undefined ? {} : { 'certificate-authority-data': Buffer.from(ca).toString('base64') }
  return stringify(
    {
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [{ name, cluster: { server, ...trust } }],
      users: [{ name: `${name}-${user.kind}`, user: authOf(user, broker) }],
      contexts: [{ name, context: { cluster: name, user: `${name}-${user.kind}` } }],
      'current-context': name,
    },
    { lineWidth: 0 },
  )
}

function authOf(user: KubeconfigUser, broker: string): object {
  switch (user.kind) {
    case 'person':
      // the sign-in is kept by the broker's address
      return plugin(['credential'], 'Sign in: nestgate login', { NESTGATE_BROKER_URL: broker })
    case 'ci':
      return plugin(ciArguments(user), 'The image of the job has no nestgate', {})
    case 'agent':
      return { tokenFile: user.tokenFile }
  }
}

function ciArguments({
  system,
  audience,
  variable,
}: Extract<KubeconfigUser, { kind: 'ci' }>): readonly string[] {
  return [
    ...['credential', '--from', system],
    ...(audience === undefined ? [] : ['--audience', audience]),
    ...(variable === undefined ? [] : ['--variable', variable]),
  ]
}

/** Never asks anything: it would wait for an answer that a script does not give. */
function plugin(
  args: readonly string[],
  installHint: string,
  env: Readonly<Record<string, string>>,
): object {
  const variables = Object.entries(env).map(([name, value]) => ({ name, value }))
  return {
    exec: {
      apiVersion: EXEC_API_VERSION,
      command: 'nestgate',
      args,
      ...(variables.length === 0 ? {} : { env: variables }),
      interactiveMode: 'Never',
      provideClusterInfo: false,
      installHint,
    },
  }
}
