/** `NEXT-STEPS.md`: what to do with the files, in which order, on which machine. */
import { CONDITIONS_MINOR, POLICY_MINOR } from './bind.ts'
import { BROKER_ACCOUNT, BROKER_NAMESPACE, CONSTRAINED_MINOR } from './impersonation.ts'
import type { ConnectInputs } from './inputs.ts'
import { API_SERVER_FOLDER, STRUCTURED_MINOR } from './issuer.ts'

/** The text. @param names - of the files beside those of every mode */
export function nextSteps(inputs: ConnectInputs, names: readonly string[]): string {
  const { cluster, mode, kubernetesVersion } = inputs
  const steps = mode === 'issuer' ? issuerSteps(inputs, names) : impersonationSteps(inputs)
  return [
    `# Connecting ${cluster} in mode ${mode} (Kubernetes 1.${kubernetesVersion})`,
    '',
    ...steps.map((step, index) => `${index + 1}. ${step}`),
    '',
    '## To know',
    '',
    ...(mode === 'issuer' ? issuerNotes(inputs) : impersonationNotes(inputs)).map(
      (note) => `- ${note}`,
    ),
    '',
  ].join('\n')
}

function issuerSteps(
  { brokerUrl, ...inputs }: ConnectInputs,
  names: readonly string[],
): readonly string[] {
  const isStructured = inputs.kubernetesVersion >= STRUCTURED_MINOR
  const files = names.filter((name) => name !== 'kube-apiserver-flags.txt')
  return [
    brokerStep(inputs, 'Nothing is refused or let in by that alone.'),
    `On each machine with an API server: \`${brokerUrl}\` must be reachable by that name. An API server on the host’s network does not ask the cluster’s DNS: a Service name does not do. Try \`curl --cacert broker-ca.crt ${brokerUrl}/issuer/.well-known/openid-configuration\` there.`,
    `There: put ${list(files)} into \`${API_SERVER_FOLDER}\`, for root alone (\`chmod 600\`). \`authorizer.kubeconfig\` has a token in it: whoever holds it can ask the broker which requests are under way.`,
    isStructured ? structuredFlagStep() : oldFlagStep(),
    `One API server after the other: wait until it is ready (\`/readyz\`) before you change the next. Then prove it: \`nestgate doctor ${inputs.cluster}\`.`,
  ]
}

function structuredFlagStep(): string {
  return [
    `There: add the flags of \`kube-apiserver-flags.txt\`, and mount the folder (for a static pod: a \`hostPath\` volume, read only).`,
    'Remove `--authorization-mode`, every `--authorization-webhook-…` and every `--oidc-…`: they exclude the files. What they said goes into the files:',
    'an issuer of your own is one more entry of `jwt`, an authorizer of your own one more of `authorizers`, after `nestgate`. If you have such files already, add our entries to them: ours of `jwt` anywhere, ours of `authorizers` first.',
  ].join(' ')
}

function oldFlagStep(): string {
  return [
    'There: add the flags of `kube-apiserver-flags.txt`, and mount the folder (for a static pod: a `hostPath` volume, read only).',
    'This Kubernetes knows one OIDC issuer and one authorization webhook: if you have one of your own, take mode impersonation. Other modes of `--authorization-mode` that you have go before `Webhook`.',
  ].join(' ')
}

function issuerNotes({ kubernetesVersion, brokerUrl }: ConnectInputs): readonly string[] {
  const isStructured = kubernetesVersion >= STRUCTURED_MINOR
  return [
    'No role is bound to a name of `nestgate:`, and none may be: such a name is let through by the broker’s word about one request, or not at all.',
    'While the broker is down, what comes through it is refused. Nobody else notices.',
    'With kubeadm the flags and the mount go into its ClusterConfiguration (`apiServer.extraArgs`, `apiServer.extraVolumes`): an upgrade writes the static pod anew.',
    isStructured
      ? 'Both files are read again when they change; the flags need a restart.'
      : 'The age of a token is limited by the broker alone: this API server checks `exp`, and that it is the broker’s.',
    `The certificate of ${brokerUrl} may change, its authority may not: ${isStructured ? 'it is in `authentication-config.yaml` and `authorizer.kubeconfig`' : '`broker-ca.crt` and `authorizer.kubeconfig` have it'}.`,
    'A new token for the authorizer: run `nestgate connect` again into another folder, change `authorizerTokenSha256` and `authorizer.kubeconfig` together. Between the two, requests through the broker are refused.',
  ]
}

function impersonationSteps(inputs: ConnectInputs): readonly string[] {
  const { kubernetesVersion, namespaces, cluster } = inputs
  const bind = ['admission-policy.yaml', 'admission-webhook.yaml'].slice(
    kubernetesVersion >= POLICY_MINOR ? 0 : 1,
  )
  const token = `kubectl -n ${BROKER_NAMESPACE} create token ${BROKER_ACCOUNT} --duration 1h >token`
  return [
    `As an administrator of the cluster: \`kubectl apply -f rbac.yaml\`. It lets nobody do anything new but the broker.${namespaces.length === 0 ? '' : ' The namespaces must be there already.'}`,
    `As such: \`${token}\` (kubectl 1.24 or later). Bring it to the broker’s machine at once, mode 0600: the broker makes the next one itself, with this one, before it ends. In the cluster where the broker runs the projected token of manifests/base does the same: leave \`refresh\` out there.`,
    brokerStep(inputs, 'Wait until `nestgate clusters list` says that it is ready.'),
    `Only now: \`kubectl apply ${bind.map((name) => `-f ${name}`).join(' ')}\`; each API server must reach the broker by the address in it. From here ${whoIsBound(inputs)} can change something through the broker only; whatever of them still runs with a token of its own is refused.`,
    ...(namespaces.length === 0
      ? []
      : [
          `Label the namespaces, so that their pods get a sidecar: \`kubectl label namespace ${namespaces.join(' ')} nestgate.dev/inject=enabled\`, and restart their workloads.`,
        ]),
    `Prove it: \`nestgate doctor ${cluster}\`.`,
  ]
}

function whoIsBound({ kubernetesVersion, namespaces, users }: ConnectInputs): string {
  const accounts = `the service accounts of ${list(namespaces)}`
  const named = [
    ...(namespaces.length === 0 ? [] : [accounts]),
    ...(users.length === 0 ? [] : [list(users)]),
  ].join(' and ')
  return kubernetesVersion >= CONDITIONS_MINOR ? named : `${named}, in labelled namespaces,`
}

function impersonationNotes(inputs: ConnectInputs): readonly string[] {
  const { kubernetesVersion, users, groups, namespaces } = inputs
  return [
    'The broker’s token lives an hour at most. Whoever steals it can read as the accounts and users of `rbac.yaml` until then; writes and sessions are refused unless they belong to a request that the broker has under way.',
    ...(groups.length > 0 && namespaces.length > 0
      ? [
          'Rules that grant groups to agents need `system:serviceaccounts` and the group of the namespace, which is why `rbac.yaml` names them: the API server adds none of its own once one is named.',
        ]
      : []),
    ...constrainedNotes(kubernetesVersion, users),
    ...bindNotes(kubernetesVersion),
    'To take it back: delete the objects of the admission file first, then those of `rbac.yaml`.',
  ]
}

function constrainedNotes(minor: number, users: readonly string[]): readonly string[] {
  if (minor < CONSTRAINED_MINOR) return []
  const accounts =
    'Service accounts are impersonated by the old verb `impersonate`: the constrained mode for them takes no extras, and the request’s id is one.'
  if (users.length === 0) return [accounts]
  return [
    'Users are impersonated by the constrained verbs (KEP-5284): `impersonate:user-info` says whom, `impersonate-on:user-info:VERB` what may be done meanwhile; narrow the latter to what these users need. With the feature gate `ConstrainedImpersonation` off they are refused.',
    accounts,
  ]
}

function bindNotes(minor: number): readonly string[] {
  const own =
    'The API server asks no admission about admission’s own objects (`admissionregistration.k8s.io`): no role of a bound name may change them.'
  const down =
    'While the broker is down, what the webhook is asked about is refused. Deleting the webhook configuration always works.'
  if (minor >= CONDITIONS_MINOR) return [own, down]
  return [
    own,
    down,
    'This Kubernetes cannot tell a webhook by who asks: it is asked about everybody’s writes in labelled namespaces, and about none elsewhere. What a bound name writes outside of them, or to cluster-wide objects, is limited by its own roles alone: keep those empty.',
  ]
}

function brokerStep({ server, ca }: Pick<ConnectInputs, 'server' | 'ca'>, after: string): string {
  const missing = [
    ...(server === undefined ? ['the address of the API server'] : []),
    ...(ca === undefined
      ? ['the certificates of its authority as `ca.crt`']
      : ['`cluster-ca.crt` as `ca.crt`']),
  ].join(' and ')
  return `On the broker’s machine: merge \`broker-cluster.yaml\` into its configuration, give ${missing}, and restart it. ${after}`
}

function list(names: readonly string[]): string {
  return names.map((name) => `\`${name}\``).join(', ')
}
