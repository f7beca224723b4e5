/**
 * The files that connect a cluster with the broker, as a pure function of what was asked for: no network, no clock, no
 * randomness. Field names and rules are those of Kubernetes' own validation (apiserver, apis/apiserver/validation;
 * apis/admissionregistration/validation).
 */
import { plainFile, toYaml } from './file.ts'
import type { ConnectFile } from './file.ts'
import { impersonationFiles } from './impersonation.ts'
import type { ConnectInputs } from './inputs.ts'
import { issuerFiles } from './issuer.ts'
import { nextSteps } from './next-steps.ts'

/** The API server's token at the broker; only mode `issuer` has one. */
export interface AuthorizerToken {
  readonly token: string
  readonly tokenSha256: string
}

/** All files, `NEXT-STEPS.md` first. */
export function connectFiles(
  inputs: ConnectInputs,
  authorizer: AuthorizerToken,
): readonly ConnectFile[] {
  const made =
    inputs.mode === 'issuer' ? issuerFiles(inputs, authorizer.token) : impersonationFiles(inputs)
  const names = made.map(({ name }) => name)
  return [
    plainFile('NEXT-STEPS.md', nextSteps(inputs, names)),
    plainFile('broker-cluster.yaml', brokerSettings(inputs, authorizer.tokenSha256)),
    ...(inputs.ca === undefined ? [] : [plainFile('cluster-ca.crt', inputs.ca)]),
    ...made,
  ]
}

/** Where the broker's own machine has what belongs to a cluster. */
const BROKER_FOLDER = '/etc/nestgate/clusters'

function brokerSettings(inputs: ConnectInputs, tokenSha256: string): string {
  const { cluster, mode, brokerUrl, server = 'https://API-SERVER:6443' } = inputs
  const folder = `${BROKER_FOLDER}/${cluster}`
  const credential =
    mode === 'issuer'
      ? { issuer: { authorizerTokenSha256: tokenSha256 } }
      : {
          tokenFile: `${folder}/token`,
          refresh: { namespace: 'nestgate-system', serviceAccount: 'nestgate-broker' },
        }
  return toYaml(
    [
      'For the broker’s configuration: the entry of this cluster below `clusters:`',
      mode === 'issuer'
        ? 'and `issuer:`, which all clusters of mode issuer share.'
        : 'and nothing else.',
      'Change the files’ places to where you put them.',
    ],
    {
      ...(mode === 'issuer' ? { issuer: { url: `${brokerUrl}/issuer` } } : {}),
      clusters: [
        {
          name: cluster,
          server,
          caFile: `${folder}/ca.crt`,
          credential,
          serviceAccountTokens: { verify: 'tokenReview' },
          ...boundNames(inputs),
        },
      ],
    },
  )
}

/** Whose writes the broker is asked about. */
function boundNames({ mode, namespaces, users }: ConnectInputs): object {
  if (mode === 'issuer') return {}
  return { bound: { namespaces, users } }
}
