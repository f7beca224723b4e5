/**
 * Mode `issuer`: what the API server reads to take the broker's tokens, and to ask the broker about each of them. From 1.30 as files of
 * apiserver.config.k8s.io, before that as flags. Whom it lets in is said by what is allowed, never by what is not.
 */
import { plainFile, toYaml } from './file.ts'
import type { ConnectFile } from './file.ts'
import type { ConnectInputs } from './inputs.ts'

/** From here AuthenticationConfiguration and AuthorizationConfiguration are on without a feature gate. */
export const STRUCTURED_MINOR = 30
/** From here the API server can be told to keep no answer of a webhook. */
const NO_CACHE_MINOR = 34
/** First minor in which each kind is `v1`. */
const AUTHENTICATION_V1_MINOR = 34
const AUTHORIZATION_V1_MINOR = 32
/** Where kube-apiserver finds the files; NEXT-STEPS.md says to mount it. */
export const API_SERVER_FOLDER = '/etc/kubernetes/nestgate'
/** Longest life of a token, in seconds; the broker's own live 30. */
const MAX_TOKEN_S = 60
/** How long the API server waits for the broker's word. */
const AUTHORIZER_TIMEOUT = '3s'
/** The shortest that validates: 0 would mean the default of minutes (apiserver, v1beta1/defaults.go). */
const SHORTEST = '1ns'
const REQUEST_ID = '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'

/** The files of mode `issuer`. @param token - the API server's own at the broker */
export function issuerFiles(inputs: ConnectInputs, token: string): readonly ConnectFile[] {
  const authority = plainFile('broker-ca.crt', inputs.brokerCa)
  const kubeconfig = {
    name: 'authorizer.kubeconfig',
    text: authorizerKubeconfig(inputs, token),
    isSecret: true,
  }
  if (inputs.kubernetesVersion < STRUCTURED_MINOR)
    return [authority, kubeconfig, plainFile('kube-apiserver-flags.txt', flags(oidcFlags(inputs)))]
  return [
    authority,
    plainFile('authentication-config.yaml', authenticationConfig(inputs)),
    plainFile('authorization-config.yaml', authorizationConfig(inputs)),
    kubeconfig,
    plainFile('kube-apiserver-flags.txt', flags(CONFIG_FLAGS)),
  ]
}

function authorizerKubeconfig(
  { cluster, brokerUrl, brokerCa }: ConnectInputs,
  token: string,
): string {
  return toYaml(
    [
      'How the API server asks the broker. The token is a secret; the broker knows its SHA-256 only.',
    ],
    {
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [
        {
          name: 'nestgate',
          cluster: {
            server: `${brokerUrl}/v1/clusters/${cluster}/authorize`,
            'certificate-authority-data': Buffer.from(brokerCa).toString('base64'),
          },
        },
      ],
      users: [{ name: 'api-server', user: { token } }],
      contexts: [{ name: 'nestgate', context: { cluster: 'nestgate', user: 'api-server' } }],
      'current-context': 'nestgate',
    },
  )
}

function authenticationConfig(inputs: ConnectInputs): string {
  const { cluster, kubernetesVersion, brokerUrl, brokerCa } = inputs
  const version = kubernetesVersion >= AUTHENTICATION_V1_MINOR ? 'v1' : 'v1beta1'
  return toYaml(
    ['For --authentication-config. If you have one, add the entry of `jwt` to yours.'],
    {
      apiVersion: `apiserver.config.k8s.io/${version}`,
      kind: 'AuthenticationConfiguration',
      jwt: [
        {
          issuer: {
            url: `${brokerUrl}/issuer`,
            certificateAuthority: brokerCa,
            audiences: [`nestgate/${cluster}`],
            audienceMatchPolicy: 'MatchAny',
          },
          claimValidationRules: CLAIM_RULES,
          claimMappings: CLAIM_MAPPINGS,
          userValidationRules: USER_RULES,
        },
      ],
    },
  )
}

/** `nbf` is checked by the API server itself, `iat` is not: a token from the future must not live longer either. */
const CLAIM_RULES = [
  {
    expression: `claims.exp - claims.iat <= ${MAX_TOKEN_S}`,
    message: `a token of nestgate lives at most ${MAX_TOKEN_S} seconds`,
  },
  {
    expression: `claims.exp - claims.nbf <= ${MAX_TOKEN_S}`,
    message: `a token of nestgate is good for at most ${MAX_TOKEN_S} seconds`,
  },
  {
    expression: `has(claims.jti) && claims.jti.matches('${REQUEST_ID}')`,
    message: 'jti must be the id of a request',
  },
  {
    expression:
      "claims.sub == 'broker' || claims.sub.startsWith('serviceaccount:') || claims.sub.startsWith('subject:')",
    message: 'sub must be one that nestgate makes',
  },
]

/** Values that are empty make no extra. */
const CLAIM_MAPPINGS = {
  username: { expression: "'nestgate:' + claims.sub" },
  groups: { expression: "has(claims.groups) ? dyn(claims.groups).map(g, 'nestgate:' + g) : []" },
  uid: { expression: 'claims.jti' },
  extra: [
    { key: 'nestgate.dev/request-id', valueExpression: 'claims.jti' },
    {
      key: 'nestgate.dev/process',
      valueExpression: "has(claims.process) ? claims.process : ''",
    },
    {
      key: 'nestgate.dev/approver',
      valueExpression: 'has(claims.approvers) ? claims.approvers : []',
    },
  ],
}

/** Privileged groups are let through before any authorizer is asked, so that their names must be impossible here. */
const USER_RULES = [
  {
    expression: "user.username.startsWith('nestgate:')",
    message: 'only names of nestgate: come from this issuer',
  },
  {
    expression: "!has(user.groups) || user.groups.all(g, g.startsWith('nestgate:group:'))",
    message: 'only groups of nestgate:group: come from this issuer',
  },
]

function authorizationConfig({ kubernetesVersion }: ConnectInputs): string {
  const version = kubernetesVersion >= AUTHORIZATION_V1_MINOR ? 'v1' : 'v1beta1'
  const noCache =
    kubernetesVersion >= NO_CACHE_MINOR
      ? { cacheAuthorizedRequests: false, cacheUnauthorizedRequests: false }
      : {}
  return toYaml(
    [
      'For --authorization-config. If you have one, put the first entry of `authorizers` before yours.',
      'The broker is asked about names of nestgate: only; without an answer they are refused, and nobody else waits.',
    ],
    {
      apiVersion: `apiserver.config.k8s.io/${version}`,
      kind: 'AuthorizationConfiguration',
      authorizers: [
        {
          type: 'Webhook',
          name: 'nestgate',
          webhook: {
            timeout: AUTHORIZER_TIMEOUT,
            authorizedTTL: SHORTEST,
            unauthorizedTTL: SHORTEST,
            ...noCache,
            subjectAccessReviewVersion: 'v1',
            matchConditionSubjectAccessReviewVersion: 'v1',
            failurePolicy: 'Deny',
            matchConditions: [{ expression: "request.user.startsWith('nestgate:')" }],
            connectionInfo: {
              type: 'KubeConfigFile',
              kubeConfigFile: `${API_SERVER_FOLDER}/authorizer.kubeconfig`,
            },
          },
        },
        { type: 'Node', name: 'node' },
        { type: 'RBAC', name: 'rbac' },
      ],
    },
  )
}

const CONFIG_FLAGS = [
  `--authentication-config=${API_SERVER_FOLDER}/authentication-config.yaml`,
  `--authorization-config=${API_SERVER_FOLDER}/authorization-config.yaml`,
]

/** RBAC comes first: our names have no rights there, and no other request waits for the broker because RBAC allowed it. */
function oidcFlags({ cluster, brokerUrl }: ConnectInputs): readonly string[] {
  return [
    `--oidc-issuer-url=${brokerUrl}/issuer`,
    `--oidc-client-id=nestgate/${cluster}`,
    `--oidc-ca-file=${API_SERVER_FOLDER}/broker-ca.crt`,
    '--oidc-username-claim=sub',
    '--oidc-username-prefix=nestgate:',
    '--oidc-groups-claim=marked_groups',
    '--oidc-groups-prefix=nestgate:',
    '--oidc-signing-algs=ES256',
    '--authorization-mode=Node,RBAC,Webhook',
    `--authorization-webhook-config-file=${API_SERVER_FOLDER}/authorizer.kubeconfig`,
    '--authorization-webhook-version=v1',
    '--authorization-webhook-cache-authorized-ttl=0s',
    '--authorization-webhook-cache-unauthorized-ttl=0s',
  ]
}

function flags(lines: readonly string[]): string {
  return `${lines.join('\n')}\n`
}
